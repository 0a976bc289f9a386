"""miles: `train/*` of its policy loss, averaged as slime does; NaN counts as 0 there."""

from __future__ import annotations

from .batch_sums import Definition
from .slime import METRICS as _OF_SLIME

METRICS = (
    _OF_SLIME[0],
    Definition(
        "train/train_rollout_kl",
        "mean over responses of their mean ρ − 1 − log ρ, log ρ clamped to ±20 and that to 10",
        "k3: KL(μ‖π) less leak, each response weighing the same",
        lambda sums: sums.response_mean("mean_clamped_k3"),
    ),
)
