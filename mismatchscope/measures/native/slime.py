"""slime: `train/*` of its policy loss. A mean over the tokens of each response, then over responses."""

from __future__ import annotations

from .batch_sums import Definition

METRICS = (
    Definition(
        "train/train_rollout_logprob_abs_diff",
        "mean over responses of their mean |log π − log μ|",
        "no divergence: E|log ρ|, each response weighing the same",
        lambda sums: sums.response_mean("mean_abs_log_ratio"),
    ),
    Definition(
        "train/tis",
        "mean over responses of their mean ρ, before the clamp",
        "E ρ, each response weighing the same",
        lambda sums: sums.response_mean("mean_ratio"),
    ),
    Definition(
        "train/tis_abs",
        "mean over responses of their mean |ρ − 1|",
        "2 TV less leak, each response weighing the same",
        lambda sums: sums.response_mean("mean_ratio_distance"),
    ),
)
