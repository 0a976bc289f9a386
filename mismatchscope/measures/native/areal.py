"""AReaL: statistics of its decoupled loss, over the tokens that rejection leaves: here, where it takes none."""

from __future__ import annotations

from .batch_sums import Definition

METRICS = (
    Definition(
        "behave_approx_kl/avg",
        "mean over tokens of log π_old − log μ",
        "−k1: its negative is unbiased for KL(μ‖π_old)",
        lambda sums: sums.mean("log_ratio"),
    ),
    Definition(
        "behave_imp_weight/avg",
        "mean over tokens of ρ, before rejection",
        "E ρ, which is 1 − leak",
        lambda sums: sums.mean("ratio"),
    ),
)
