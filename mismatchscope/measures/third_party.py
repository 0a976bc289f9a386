"""Two policies and a third one that both should be: which is farther from it, and whether they err alike.

The error of a policy is e = log p − log p₃ of a sampled token, p₃ the third party's probability. Between two
policies the difference of log p is e_a − e_b, so the mean squares of three pairs say all there is to say of second
moments: E[(e_a − e_b)²] = E[e_a²] + E[e_b²] − 2 E[e_a e_b].

Shapes: C clusters (prompts), 3 pairs: a and the third, b and the third, a and b.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .intervals import NONNEGATIVE, jackknife_ends
from .results import Interval, ThirdParty


def third_party(sums_3C: np.ndarray, count_C: np.ndarray, *, confidence: float = 0.95) -> ThirdParty | None:
    """How far a, the setting, and b, which it is held against, are from the third party.

    `sums_3C` are the sums of e_a², of e_b² and of (e_a − e_b)² over the same `count_C` tokens of each prompt. None
    where a policy is the third one to the bit, or gives a token no probability: then there are no errors to relate.
    """
    total_3 = sums_3C.sum(axis=1)
    if not np.isfinite(total_3).all() or not total_3[:2].all():
        return None

    def interval(figure: Callable[[np.ndarray], np.ndarray], low: float, high: float) -> Interval:
        return _jackknife(figure, sums_3C, count_C, confidence, (low, high))

    rms_a, rms_b = np.sqrt(total_3[:2] / count_C.sum()).tolist()
    return ThirdParty(
        rms_setting=rms_a,
        rms_against=rms_b,
        ratio=interval(_ratio, *NONNEGATIVE),
        correlation=interval(_correlation, -1.0, 1.0),
        quadrature=interval(_quadrature, *NONNEGATIVE),
    )


def _ratio(square_3: np.ndarray) -> np.ndarray:
    return np.sqrt(square_3[0] / square_3[1])


def _correlation(square_3: np.ndarray) -> np.ndarray:
    return (square_3[0] + square_3[1] - square_3[2]) / (2 * np.sqrt(square_3[0] * square_3[1]))


def _quadrature(square_3: np.ndarray) -> np.ndarray:
    return square_3[2] / (square_3[0] + square_3[1])


def _jackknife(
    figure: Callable[[np.ndarray], np.ndarray],
    sums_3C: np.ndarray,
    count_C: np.ndarray,
    confidence: float,
    bounds: tuple[float, float],
) -> Interval:
    """A figure of three totals, with the ends of a delete-one-prompt jackknife."""
    total_3, tokens, clusters = sums_3C.sum(axis=1), int(count_C.sum()), count_C.size
    value = float(np.clip(figure(total_3), *bounds))
    if clusters < 2:
        return Interval(value, None, None, confidence, tokens, clusters, "too-few-clusters")
    with np.errstate(divide="ignore", invalid="ignore"):  # where one prompt has all of an error
        shift_C = value - figure(total_3[:, None] - sums_3C)
    if not np.isfinite(shift_C).all():
        return Interval(value, None, None, confidence, tokens, clusters, "one-cluster-makes-it")
    if np.ptp(shift_C) <= 1e-12 * abs(value):
        return Interval(value, None, None, confidence, tokens, clusters, "no-between-cluster-variance")
    effective = tokens**2 / float(count_C @ count_C)
    low, high = jackknife_ends(value, shift_C, effective, confidence)
    low, high = min(max(low, bounds[0]), value), max(min(high, bounds[1]), value)
    return Interval(value, low, high, confidence, tokens, clusters, "cluster-jackknife-hall")
