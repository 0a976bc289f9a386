"""SkyRL: `policy/rollout_train_logprobs_abs_diff_*`, over the tokens of the training batch that its mask keeps."""

from __future__ import annotations

from .batch_sums import Definition, spread

_PREFIX = "policy/rollout_train_logprobs_abs_diff"

METRICS = (
    Definition(
        f"{_PREFIX}_mean",
        "mean over tokens of |log π − log μ|",
        "no divergence: E|log ρ|",
        lambda sums: sums.mean("abs_log_ratio"),
    ),
    Definition(
        f"{_PREFIX}_std",
        "standard deviation over tokens of |log π − log μ|",
        "no divergence",
        lambda sums: spread(sums, "abs_log_ratio", "square_log_ratio"),
    ),
    Definition(
        f"{_PREFIX}_max",
        "largest |log π − log μ|",
        "an extreme; says little of TV where the token is rare",
        lambda sums: sums.largest["abs_log_ratio"],
    ),
    Definition(
        f"{_PREFIX}_min",
        "smallest |log π − log μ|",
        "an extreme",
        lambda sums: sums.smallest["abs_log_ratio"],
    ),
)
