"""TRL: `sampling/*` of `GRPOTrainer`. Each rank computes its own, and TRL averages those or takes the extreme."""

from __future__ import annotations

from .batch_sums import Definition

_MASKED = "sequence_mask, cap 3"
_TRUNCATED = "token_truncate, cap 3"

METRICS = (
    Definition(
        "sampling/sampling_logp_difference/mean",
        "mean over a rank's tokens of |log π − log μ|, then over ranks",
        "no divergence: E|log ρ|",
        lambda sums: sums.mean("abs_log_ratio"),
        over_ranks=True,
    ),
    Definition(
        "sampling/sampling_logp_difference/max",
        "largest |log π − log μ|",
        "an extreme; says little of TV where the token is rare",
        lambda sums: sums.largest["abs_log_ratio"],
    ),
    Definition(
        "sampling/importance_sampling_ratio/mean",
        "mean over a rank's responses of ρ(y), 0 where it is above 3; then over ranks",
        "mean weight after masking, masked zeros counted in: not E ρ(y)",
        lambda sums: sums.response_mean("capped_sequence_ratio"),
        _MASKED,
        over_ranks=True,
    ),
    Definition(
        "sampling/importance_sampling_ratio/min",
        "smallest ρ(y), 0 where one is above 3",
        "0 as soon as one response is masked",
        lambda sums: sums.smallest["capped_sequence_ratio"],
        _MASKED,
    ),
    Definition(
        "sampling/importance_sampling_ratio/max",
        "largest ρ(y) that is not above 3",
        "after masking: it cannot exceed 3",
        lambda sums: sums.largest["capped_sequence_ratio"],
        _MASKED,
    ),
    Definition(
        "sampling/importance_sampling_ratio/mean",
        "mean over a rank's tokens of min(ρ, 3), then over ranks",
        "mean weight after truncation: not E ρ",
        lambda sums: sums.mean("ratio_to_cap"),
        _TRUNCATED,
        over_ranks=True,
    ),
    Definition(
        "sampling/importance_sampling_ratio/min",
        "smallest ρ",
        "an extreme",
        lambda sums: sums.smallest["ratio"],
        _TRUNCATED,
    ),
    Definition(
        "sampling/importance_sampling_ratio/max",
        "largest min(ρ, 3)",
        "after truncation: it cannot exceed 3",
        lambda sums: min(sums.largest["ratio"], 3.0),
        _TRUNCATED,
    ),
)
