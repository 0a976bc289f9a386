"""prime-rl: means over the tokens that its loss mask keeps. Its π is π_θ, the policy of the update itself; what is
recomputed from a log is of π_old, which in prime-rl's own logs is the same."""

from __future__ import annotations

from .batch_sums import Definition

METRICS = (
    Definition(
        "mismatch_kl/all/mean",
        "mean over tokens of ρ − 1 − log ρ",
        "k3: KL(μ‖π) less leak; prime-rl's π is π_θ, a report's the log's π_old",
        lambda sums: sums.mean("k3"),
    ),
)
