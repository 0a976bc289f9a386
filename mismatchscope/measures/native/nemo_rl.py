"""NeMo-RL: `train/*` of its clipped policy-gradient loss. Means over all tokens of the step."""

from __future__ import annotations

from .batch_sums import Definition

METRICS = (
    Definition(
        "train/token_mult_prob_error",
        "mean over tokens of exp|log π − log μ|",
        "no divergence: E e^|log ρ|",
        lambda sums: sums.mean("exp_abs_log_ratio"),
    ),
    Definition(
        "train/gen_kl_error",
        "mean over tokens of ρ − 1 − log ρ",
        "k3: KL(μ‖π) less leak",
        lambda sums: sums.mean("k3"),
    ),
    Definition(
        "train/policy_kl_error",
        "mean over tokens of 1/ρ − 1 + log ρ",
        "not KL(π‖μ), whose tokens π would have to draw",
        lambda sums: sums.mean("reverse_k3"),
    ),
    Definition(
        "train/js_divergence_error",
        "mean over tokens of ½ k3(π/m) + ½ k3(μ/m), m = (μ + π)/2",
        "not the Jensen–Shannon divergence: half of it is over π's tokens",
        lambda sums: sums.mean("js"),
    ),
    Definition(
        "train/sampling_importance_ratio",
        "mean over tokens of ρ, where no truncation is configured",
        "E ρ, which is 1 − leak",
        lambda sums: sums.mean("ratio"),
    ),
)
