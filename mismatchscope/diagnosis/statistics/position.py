"""Where along a sequence a gap begins or ends.

Shapes: N tokens, S sequences, P positions.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from ..evidence import Array
from ..sample import Sample, statistic
from .stat import Stat, ratio_of_sums, root

Axis = Literal["absolute", "relative"]
_EDGE_TOKENS = 64
"""On either side of a break."""
_LEAST = 0.03
"""A |z| in floors that is smaller counts as this: a tie has no logarithm."""
_SPREAD = 1.11
"""Standard deviation of log |z| of a normal z."""


class Break(NamedTuple):
    """The place at which the gap changes most: the first position after it, R before and after, and how much of
    the variance of log |z| over tokens the step explains; `ramp` is what a straight line explains."""

    axis: Axis
    at: int
    before: Stat
    after: Stat
    nearby: Stat
    """R of the 16 positions from the break on."""
    calm_before: float
    """Share of the tokens before it that are within three floors."""
    t: float
    explained: float
    ramp: float
    onward: tuple[float, float]
    """Slope of log |z| on the logarithm of the distance from the break on, and its t."""


@statistic
def log_gap(sample: Sample) -> Array:
    """log |z| in floors [N], 0 of tokens that say nothing."""
    return np.where(sample.scaled_N, np.log(np.maximum(np.nan_to_num(sample.gap_N), _LEAST)), 0.0)


@statistic
def breaks(sample: Sample) -> dict[Axis, Break]:
    """The clearest break over absolute positions, where prompts' lengths are known, and over the response's."""
    position_N = sample.evidence.position_N
    length_S = sample.evidence.prompt_length_S
    axes: dict[Axis, Array] = {"relative": position_N}
    if length_S is not None:
        axes["absolute"] = position_N + length_S[sample.evidence.sequence_N]
    found = {axis: _break(sample, axis, at_N) for axis, at_N in axes.items()}
    return {axis: each for axis, each in found.items() if each is not None}


def _break(sample: Sample, axis: Axis, at_N: Array) -> Break | None:
    live_N = sample.scaled_N
    if np.count_nonzero(live_N) < 2 * _EDGE_TOKENS:
        return None
    first = int(at_N[live_N].min())
    place_N = np.where(live_N, at_N - first, 0)
    value_N = log_gap(sample)
    count_P = np.bincount(place_N, live_N)
    sum_P = np.bincount(place_N, value_N)
    total, mean = count_P.sum(), sum_P.sum() / count_P.sum()
    variance = float(np.sum(np.where(live_N, value_N - mean, 0.0) ** 2))
    before_P, sum_before_P = np.cumsum(count_P), np.cumsum(sum_P - mean * count_P)
    usable_P = (before_P >= _EDGE_TOKENS) & (total - before_P >= _EDGE_TOKENS)
    if not usable_P.any() or variance <= 0:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        between_P = np.where(usable_P, sum_before_P**2 * total / (before_P * (total - before_P)), 0.0)
    place = int(between_P.argmax()) + 1
    after_N = live_N & (place_N >= place)
    before_N = live_N & (place_N < place)
    line_P = np.arange(len(count_P), dtype=np.float64)
    line_P -= (line_P * count_P).sum() / total
    ramp = float((line_P * sum_P).sum() ** 2 / max((line_P**2 * count_P).sum(), 1e-300) / variance)
    return Break(
        axis,
        first + place,
        _gap_of(sample, before_N),
        _gap_of(sample, after_N),
        _gap_of(sample, after_N & (place_N < place + 16)),
        float(np.mean(sample.gap_N[before_N] < 3)),
        step_t(sample, value_N, before_N, after_N),
        float(between_P.max()) / variance,
        ramp,
        _slope(sample, np.log1p(np.maximum(place_N - place, 0)), after_N),
    )


def _gap_of(sample: Sample, of_N: Array) -> Stat:
    squares_N = np.where(of_N, np.nan_to_num(sample.z_N) ** 2, 0.0)
    return root(ratio_of_sums(sample.by_prompt(squares_N), sample.by_prompt(of_N)), 1 / sample.floor.value)


gap_of = _gap_of


def step_t(sample: Sample, value_N: Array, before_N: Array, after_N: Array) -> float:
    """The step of the mean of log |z| over its standard error by prompts."""
    means, scores = [], []
    for of_N in (before_N, after_N):
        mean = float(value_N[of_N].mean())
        residual_C = sample.by_prompt(np.where(of_N, value_N - mean, 0.0)) / np.count_nonzero(of_N)
        means.append(mean)
        scores.append(residual_C)
    error = float(np.sqrt(np.sum((scores[1] - scores[0]) ** 2)))
    return (means[1] - means[0]) / error if error > 0 else 0.0


class Flips(NamedTuple):
    """Sequences that are at the floor on one side of a place of their own and above it on the other."""

    at_S: Array
    """The first token after the place, counted within the response; −1 where a sequence has none."""
    rises_S: Array
    telling: int
    inside: Stat
    """R of their tokens on the side that is above the floor."""
    outside: Stat
    edge: Stat
    """R of the tokens above the floor that are nearest to the place, eight of each sequence."""


_FLIP_T = 6.0
_FLIP_PART = 12
_EDGE = 8


@statistic
def flips(sample: Sample) -> Flips:
    """The clearest step of log |z| within each sequence, where one side is at the floor."""
    evidence, value_N = sample.evidence, log_gap(sample)
    at_S, rises_S = np.full(evidence.sequences, -1), np.zeros(evidence.sequences, dtype=bool)
    above_N = np.zeros(evidence.tokens, dtype=bool)
    below_N, edge_N = np.zeros_like(above_N), np.zeros_like(above_N)
    telling = 0
    for s in range(evidence.sequences):
        first, last = int(evidence.offsets_S1[s]), int(evidence.offsets_S1[s + 1])
        rows_M = first + np.flatnonzero(sample.scaled_N[first:last])
        if len(rows_M) < 2 * _FLIP_PART + 8:
            continue
        telling += 1
        value_M = value_N[rows_M]
        size = np.arange(_FLIP_PART, len(rows_M) - _FLIP_PART)
        sum_M = np.cumsum(value_M - value_M.mean())[size - 1]
        t_M = sum_M / (_SPREAD * np.sqrt(size * (len(rows_M) - size) / len(rows_M)))
        best = int(np.abs(t_M).argmax())
        if abs(t_M[best]) < _FLIP_T:
            continue
        parts = rows_M[: size[best]], rows_M[size[best] :]
        levels = [float(np.sqrt(np.mean(sample.gap_N[part] ** 2))) for part in parts]
        low, high = min(levels), max(levels)
        if low > 1.8 or high < 2.5 * max(low, 1.0):
            continue
        at_S[s], rises_S[s] = rows_M[size[best]] - first, levels[1] > levels[0]
        above_N[parts[int(rises_S[s])]], below_N[parts[1 - int(rises_S[s])]] = True, True
        edge_N[parts[1][:_EDGE] if rises_S[s] else parts[0][-_EDGE:]] = True
    above, below, edge = (_gap_of(sample, each_N) for each_N in (above_N, below_N, edge_N))
    return Flips(at_S, rises_S, telling, above, below, edge)


@statistic
def first_token(sample: Sample) -> tuple[Stat, Stat]:
    """R of the first token of the responses, and of those after it."""
    first_N = sample.scaled_N & (sample.evidence.position_N == 0)
    return _gap_of(sample, first_N), _gap_of(sample, sample.scaled_N & (sample.evidence.position_N > 0))


@statistic
def growth(sample: Sample) -> tuple[float, float] | None:
    """(exponent, its t) of R over absolute position: the slope of log |z| on the logarithm of the position."""
    length_S = sample.evidence.prompt_length_S
    at_N = sample.evidence.position_N + 1.0
    if length_S is not None:
        at_N = at_N + length_S[sample.evidence.sequence_N]
    use_N = sample.scaled_N
    return _slope(sample, np.log(at_N), use_N) if np.count_nonzero(use_N) >= 100 else None


@statistic
def course_in_response(sample: Sample) -> tuple[float, float]:
    """The same over the position within the response."""
    return _slope(sample, np.log(sample.evidence.position_N + 1.0), sample.scaled_N)


def _slope(sample: Sample, x_N: Array, use_N: Array) -> tuple[float, float]:
    """The slope of log |z| on x over these tokens, and the slope over its standard error by prompts."""
    value_N, count = log_gap(sample), max(1, int(np.count_nonzero(use_N)))
    x_N, y_N = np.where(use_N, x_N, 0.0), np.where(use_N, value_N, 0.0)
    x_N, y_N = (np.where(use_N, each - each.sum() / count, 0.0) for each in (x_N, y_N))
    xx = float(x_N @ x_N)
    if xx <= 0:
        return 0.0, 0.0
    slope = float(x_N @ y_N) / xx
    score_C = sample.by_prompt(x_N * (y_N - slope * x_N))
    error = float(np.sqrt(score_C @ score_C)) / xx
    return slope, slope / error if error > 0 else 0.0
