"""Does what tokens of a response add up to spread like a random walk, or like a bias that all of them share?

The exponent of the spread says how, not why: errors that are larger at later positions, and rare large ones that
are in few bins of length, bend it as a bias does. What only a bias does is to make early and late tokens of a
response err alike.

Shape suffixes: E rows, one a pair of length bin and cluster that occurs; B bins, C clusters.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import numpy as np

from .intervals import jackknife_ends, ratio_interval
from .log_results import LengthScaling
from .results import Interval

Array = np.ndarray

MIN_RESPONSES = 50
MIN_RANGE = 2.0
"""The longest bin's length over the shortest one's; with less the exponent is not told."""
_ITERATIONS = 50


def length_scaling(
    bin_E: Array, cluster_E: Array, columns: dict[str, Array], *, confidence: float = 0.95
) -> LengthScaling | None:
    """Exponent h of the spread of Σ d over responses of length T, by quasi-likelihood.

    Responses are taken as if normal about m T with variance σ² T^2h, m the mean of d over all tokens: the fit
    needs no normality, and its error is a sandwich over prompts. `columns` has sums over responses by bin and
    prompt: "responses", "log_ratio" Σ x, "square" Σ x², "product" Σ x T, "length" Σ T, "length_square" Σ T²,
    "log_length" Σ log T, "early" Σ a and "early_late" Σ a (x − a), x = Σ d of a response and a that of its early
    tokens, of which each response of a bin has as many.

    None with no response; `cannot_tell` where lengths or responses are too few, or the interval is too wide.
    """
    count_E, x_E, length_E = (columns[name] for name in ("responses", "log_ratio", "length"))
    total = float(count_E.sum())
    if not total:
        return None
    mean = float(x_E.sum() / length_E.sum())
    square_E = np.maximum(
        columns["square"] - 2 * mean * columns["product"] + mean**2 * columns["length_square"], 0.0
    )
    count_B, square_B = np.bincount(bin_E, count_E), np.bincount(bin_E, square_E)
    log_length_B: Array = np.bincount(bin_E, columns["log_length"])
    used_B = (count_B > 0) & (square_B > 0)
    clusters = len(np.unique(cluster_E))

    def unknown(method: str) -> LengthScaling:
        nothing = Interval(None, None, None, confidence, int(total), clusters, method)
        return LengthScaling(exponent=nothing, code="cannot_tell", sequences=int(total))

    if total < MIN_RESPONSES or clusters < 2:
        return unknown("too-few-responses")
    log_length_B = log_length_B[used_B] / count_B[used_B]
    if not len(log_length_B) or np.ptp(log_length_B) < math.log(MIN_RANGE) - 1e-9:
        return unknown("lengths-too-alike")
    place_B = np.zeros(len(used_B))
    place_B[used_B] = log_length_B - np.average(log_length_B, weights=count_B[used_B])
    usable_E = used_B[bin_E]
    fitted = _exponent(
        place_B[bin_E][usable_E], cluster_E[usable_E], count_E[usable_E], square_E[usable_E], confidence
    )
    if fitted is None:
        return unknown("no-fit")
    shared = _shared(bin_E, cluster_E, columns, count_B, confidence)
    return LengthScaling(fitted, _code(fitted, shared), int(total), shared)


_FEWEST_THAT_TELL = 4.0
"""Where the error of the exponent comes from fewer prompts, (Σ i²)² / Σ i⁴ of their influences, it is a matter of a
few extreme responses, and its interval misses every second time."""
_NEAR_WALK = (0.25, 0.75)
"""An interval that holds ½ says "random walk" where it lies in between: a wide one rules nothing out."""


def _exponent(
    place_E: Array, cluster_E: Array, count_E: Array, square_E: Array, confidence: float
) -> Interval | None:
    """Newton's method for Σ n (a + 2 h l) + Σ S exp(−a − 2 h l), which is convex in a and h; l = log T, centred."""
    design_E2 = np.column_stack([np.ones(len(place_E)), 2 * place_E])
    found = np.array([math.log(square_E.sum() / count_E.sum()), 0.5])
    for _ in range(_ITERATIONS):
        scaled_E = square_E * np.exp(-(design_E2 @ found))
        gradient = design_E2.T @ (count_E - scaled_E)
        hessian = (design_E2 * scaled_E[:, None]).T @ design_E2
        step = np.linalg.solve(hessian, gradient)
        found = found - np.clip(step, -1, 1)
        if np.abs(step).max() < 1e-10:
            break
    else:
        return None
    _, index_E = np.unique(cluster_E, return_inverse=True)
    score_E2 = (scaled_E - count_E)[:, None] * design_E2
    count_C = np.bincount(index_E, count_E)
    influence_C = np.bincount(index_E, score_E2 @ np.linalg.inv(hessian)[:, 1])
    square_C = (influence_C / np.abs(influence_C).max()) ** 2
    value, n, clusters = float(found[1]), int(count_C.sum()), len(count_C)
    if square_C.sum() ** 2 < _FEWEST_THAT_TELL * (square_C @ square_C):
        return Interval(value, None, None, confidence, n, clusters, "few-prompts-make-it")
    effective = float(count_C.sum()) ** 2 / float(count_C @ count_C)
    low, high = jackknife_ends(value, influence_C, effective, confidence)
    return Interval(value, low, high, confidence, n, clusters, "quasi-likelihood-by-prompt")


def _shared(
    bin_E: Array, cluster_E: Array, columns: dict[str, Array], count_B: Array, confidence: float
) -> Interval | None:
    """4 Cov(a, x − a) / Var(x), of deviations from the mean of the bin; the covariance of independent errors is 0
    whatever their tails, sizes and means by position."""
    count_E, early_E = columns["responses"], columns["early"]
    late_E = columns["log_ratio"] - early_E
    early_B, late_B = (np.bincount(bin_E, sum_E) / np.maximum(count_B, 1) for sum_E in (early_E, late_E))
    mean_early_E, mean_late_E = early_B[bin_E], late_B[bin_E]
    covariance_E = columns["early_late"] - mean_early_E * late_E - mean_late_E * early_E
    covariance_E += count_E * mean_early_E * mean_late_E
    mean_E = mean_early_E + mean_late_E
    square_E = columns["square"] - 2 * mean_E * columns["log_ratio"] + count_E * mean_E**2
    _, index_E = np.unique(cluster_E, return_inverse=True)
    square_C = np.maximum(np.bincount(index_E, square_E), 0.0)
    if not square_C.any():
        return None
    share = ratio_interval(4 * np.bincount(index_E, covariance_E), square_C, confidence=confidence)
    return replace(share, n=int(count_E.sum()))


def _code(
    exponent: Interval, shared: Interval | None
) -> Literal["below", "random_walk", "between", "biased", "above", "cannot_tell"]:
    low, high = exponent.low, exponent.high
    if low is None or high is None or (low <= 0.5 <= high and not _NEAR_WALK[0] < low <= high < _NEAR_WALK[1]):
        return "cannot_tell"
    if high < 0.5:
        return "below"
    if low <= 0.5:
        return "random_walk"
    if shared is None or shared.low is None or shared.low <= 0:
        return "above"
    return "between" if high < 1 else "biased"
