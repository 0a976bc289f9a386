"""verl: the weights of its rollout correction, `rollout_corr/rollout_is_*`, at the default threshold 2."""

from __future__ import annotations

import math

from .batch_sums import BatchSums, Definition
from .groups import EPSILON
from .verl_means import Value, by_response, largest, mean, smallest

_BOUND = 20.0


def _clamped_spread(name: str, square: str) -> Value:
    def value(sums: BatchSums) -> float:
        if sums.total["tokens"] <= 1:
            return 0.0
        centre = mean(name)(sums)
        return math.sqrt(max(mean(square)(sums) - centre * centre, 0.0))

    return value


def _effective_size(name: str, square: str) -> Value:
    def value(sums: BatchSums) -> float:
        return (mean(name)(sums) + EPSILON) ** 2 / mean(square)(sums)

    return value


def _response_spread(sums: BatchSums) -> float:
    """Standard deviation over responses, n − 1 in the denominator; 0 of one response."""
    n = sums.total["responses"]
    if n < 2:
        return 0.0
    centre = sums.response_mean("weight_deviation")
    return math.sqrt(max(sums.response_mean("square_weight_deviation") - centre * centre, 0.0) * n / (n - 1))


def _exp(logarithm: float) -> float:
    """Infinite where it passes any float, as on a tensor."""
    return math.exp(logarithm) if logarithm < 709 else math.inf


_TOKEN, _SEQUENCE = "rollout_is=token, threshold 2", "rollout_is=sequence, threshold 2"
WEIGHTS = (
    Definition(
        "rollout_corr/rollout_is_mean",
        "mean over tokens of ρ, log ρ clamped to ±20, before truncation",
        "E ρ, which is 1 − leak",
        mean("safe_ratio"),
        _TOKEN,
    ),
    Definition(
        "rollout_corr/rollout_is_max", "largest ρ before truncation", "an extreme", largest("safe_ratio"), _TOKEN
    ),
    Definition("rollout_corr/rollout_is_min", "smallest ρ", "an extreme", smallest("safe_ratio"), _TOKEN),
    Definition(
        "rollout_corr/rollout_is_std",
        "standard deviation over tokens of ρ clamped to [½, 2]",
        "spread after clamping, not of the ratios",
        _clamped_spread("ratio_within", "square_ratio_within"),
        _TOKEN,
    ),
    Definition(
        "rollout_corr/rollout_is_eff_sample_size",
        "(mean w)² / mean w² over tokens, w = ρ clamped to [½, 2]",
        "ESS/N after clamping: it cannot fall below 0.64",
        _effective_size("ratio_within", "square_ratio_within"),
        _TOKEN,
    ),
    Definition(
        "rollout_corr/rollout_is_ratio_fraction_high",
        "share of tokens with ρ > 2",
        "a share",
        mean("above"),
        _TOKEN,
    ),
    Definition(
        "rollout_corr/rollout_is_ratio_fraction_low",
        "share of tokens with ρ < ½",
        "a share",
        mean("below"),
        _TOKEN,
    ),
    Definition(
        "rollout_corr/rollout_is_seq_mean",
        "mean over responses of their mean ρ",
        "E ρ, each response weighing the same",
        by_response("mean_safe_ratio"),
        _TOKEN,
    ),
    Definition(
        "rollout_corr/rollout_is_seq_std",
        "standard deviation of the responses' mean ρ",
        "a spread",
        _response_spread,
        _TOKEN,
    ),
    Definition(
        "rollout_corr/rollout_is_seq_max",
        "largest mean ρ of a response",
        "an extreme",
        largest("mean_safe_ratio"),
        _TOKEN,
    ),
    Definition(
        "rollout_corr/rollout_is_seq_min",
        "smallest mean ρ of a response",
        "an extreme",
        smallest("mean_safe_ratio"),
        _TOKEN,
    ),
    Definition(
        "rollout_corr/rollout_is_seq_max_deviation",
        "largest |mean ρ − 1| of a response",
        "an extreme",
        largest("weight_deviation"),
        _TOKEN,
    ),
    Definition(
        "rollout_corr/rollout_is_seq_fraction_high",
        "share of responses whose mean ρ is above 2",
        "a share",
        by_response("mean_safe_ratio_above"),
        _TOKEN,
    ),
    Definition(
        "rollout_corr/rollout_is_seq_fraction_low",
        "share of responses whose mean ρ is below ½",
        "a share",
        by_response("mean_safe_ratio_below"),
        _TOKEN,
    ),
    Definition(
        "rollout_corr/rollout_is_mean",
        "mean over tokens of their response's ρ(y), log ρ(y) clamped to ±20, before truncation",
        "E ρ(y), longer responses weighing more: not 1 even where nothing leaks",
        mean("token_weighted_sequence_ratio"),
        _SEQUENCE,
    ),
    Definition(
        "rollout_corr/rollout_is_max",
        "largest ρ(y) before truncation",
        "an extreme",
        lambda sums: math.exp(min(sums.largest["sequence_log_ratio"], _BOUND)),
        _SEQUENCE,
    ),
    Definition(
        "rollout_corr/rollout_is_min",
        "smallest ρ(y)",
        "an extreme",
        lambda sums: _exp(sums.smallest["sequence_log_ratio"]),
        _SEQUENCE,
    ),
    Definition(
        "rollout_corr/rollout_is_std",
        "standard deviation over tokens of their response's ρ(y) clamped to [½, 2]",
        "spread after clamping, not of the ratios",
        _clamped_spread("token_weighted_clipped", "token_weighted_square_clipped"),
        _SEQUENCE,
    ),
    Definition(
        "rollout_corr/rollout_is_eff_sample_size",
        "(mean w)² / mean w² over tokens, w = ρ(y) clamped to [½, 2]",
        "ESS/N after clamping: it cannot fall below 0.64",
        _effective_size("token_weighted_clipped", "token_weighted_square_clipped"),
        _SEQUENCE,
    ),
    Definition(
        "rollout_corr/rollout_is_ratio_fraction_high",
        "share of responses with ρ(y) > 2",
        "a share",
        by_response("sequence_above"),
        _SEQUENCE,
    ),
    Definition(
        "rollout_corr/rollout_is_ratio_fraction_low",
        "share of responses with ρ(y) < ½",
        "a share",
        by_response("sequence_below"),
        _SEQUENCE,
    ),
)
