"""prime-rl: means over the tokens that its loss mask keeps. Its π is π_θ, the policy of the update itself."""

from __future__ import annotations

from .batch_sums import Definition

METRICS = (
    Definition(
        "mismatch_kl/all/mean",
        "mean over tokens of ρ − 1 − log ρ",
        "k3: KL(μ‖π_θ) less leak, updates within the step included",
        lambda sums: sums.mean("k3"),
    ),
)
