"""torchtitan: `bit_wise/*` of its RL losses, over all tokens of the step that the loss uses."""

from __future__ import annotations

from .batch_sums import Definition

METRICS = (
    Definition(
        "bit_wise/logprob_diff/mean",
        "mean over tokens of log π − log μ, signed",
        "−k1: its negative is unbiased for KL(μ‖π)",
        lambda sums: sums.mean("log_ratio"),
    ),
    Definition(
        "bit_wise/logprob_diff/max",
        "largest |log π − log μ|",
        "an extreme; 0 where all log-probs agree",
        lambda sums: sums.largest["abs_log_ratio"],
    ),
    Definition(
        "bit_wise/ratio_tokens_different/mean",
        "share of tokens with |log π − log μ| > 1e-6",
        "a share",
        lambda sums: sums.mean("changed"),
    ),
)
