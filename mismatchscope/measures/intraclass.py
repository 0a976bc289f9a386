"""What share of a variance lies between groups: one-way random effects, groups of unequal size.

Shape suffix: C groups (prompts).
"""

from __future__ import annotations

import math

import numpy as np

from .intervals import jackknife_ends
from .results import Interval

Array = np.ndarray

MIN_GROUPS = 8
"""Fewer have no interval."""


def intraclass(
    count_C: Array,
    sum_C: Array,
    square_C: Array,
    *,
    fitted: tuple[float, float] = (1.0, 0.0),
    confidence: float = 0.95,
) -> Interval:
    """Intraclass correlation ρ = σ²_between / (σ²_between + σ²_within) by analysis of variance.

    From the number of values of each group, their sum, and the sum of their squares. With n₀ = (N − Σ n² / N) / (C
    − 1) ρ = (MSB − MSW) / (MSB + (n₀ − 1) MSW) (Donner 1986, "A review of inference procedures for the intraclass
    correlation coefficient"). Values are no normal ones, so the interval is a delete-one-group jackknife, of
    log(MSB / MSW) / 2, Fisher's transform for groups. The estimate can be negative; `n` counts values.

    `fitted` is how many degrees of freedom means that were taken out before cost between groups and within them.
    No value where no group has two values or nothing varies.
    """
    total, groups = float(count_C.sum()), len(count_C)
    if groups - fitted[0] < 1 or total - groups - fitted[1] < 1:
        return Interval(None, None, None, confidence, int(total), groups, "no-group-has-two")
    centre = float(sum_C.sum()) / total
    # About the common mean: sums of squares of small values keep their digits.
    square_C = square_C - 2 * centre * sum_C + centre**2 * count_C
    sum_C = sum_C - centre * count_C
    between_C = sum_C**2 / np.maximum(count_C, 1)
    within_C = np.maximum(square_C - between_C, 0.0)

    def mean_squares(
        count: Array, groups: Array, sums: Array, between: Array, within: Array
    ) -> tuple[Array, Array]:
        between_df, within_df = (
            groups - fitted[0] * groups / len(count_C),
            count - groups - fitted[1] * count / total,
        )
        return np.maximum(between - sums**2 / count, 0.0) / between_df, within / within_df

    everything = (
        np.array([total]),
        np.array([groups]),
        *(np.array([each.sum()]) for each in (sum_C, between_C, within_C)),
    )
    msb, msw = (float(each[0]) for each in mean_squares(*everything))
    n0 = (total - float(count_C @ count_C) / total) / (groups - 1)
    if msb + (n0 - 1) * msw <= 0:
        return Interval(None, None, None, confidence, int(total), groups, "no-variance")
    value = (msb - msw) / (msb + (n0 - 1) * msw)
    if groups < MIN_GROUPS or msb == 0 or msw == 0:
        method = "too-few-groups" if groups < MIN_GROUPS else "no-variance-on-a-side"
        return Interval(value, None, None, confidence, int(total), groups, method)
    others = (
        total - count_C,
        np.full(groups, groups - 1),
        *(each.sum() - each for each in (sum_C, between_C, within_C)),
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        msb_C, msw_C = mean_squares(*others)
        shift_C = 0.5 * math.log(msb / msw) - 0.5 * np.log(msb_C / msw_C)
    # Means that were taken out leave a group less of its own, and its shift is smaller by as much.
    shift_C *= math.sqrt((groups - 1) / (groups - fitted[0]))
    if not np.isfinite(shift_C).all():
        return Interval(value, None, None, confidence, int(total), groups, "one-group-has-all")
    effective = total**2 / float(count_C @ count_C)
    ends = jackknife_ends(0.5 * math.log(msb / msw), shift_C, effective, confidence)
    low, high = (_from_logarithm(end, n0) for end in ends)
    return Interval(value, min(low, value), max(high, value), confidence, int(total), groups, "cluster-jackknife")


def _from_logarithm(half_log_ratio: float, n0: float) -> float:
    """ρ from log(MSB / MSW) / 2."""
    ratio = math.exp(min(2 * half_log_ratio, 700.0))
    return (ratio - 1) / (ratio + n0 - 1)
