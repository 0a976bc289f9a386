"""Does what tokens of a response add up to spread like a random walk, or like a bias that all of them share?

Shape suffixes: E rows, one a pair of length bin and cluster that occurs; B bins, C clusters.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from .intervals import jackknife_ends
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
    prompt: "responses", "log_ratio" Σ x, "square" Σ x², "product" Σ x T, "length" Σ T, "length_square" Σ T² and
    "log_length" Σ log T, x = Σ d of a response.

    None with no response; `cannot_tell` where lengths or responses are too few, or the interval holds both ½ and 1.
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
    return unknown("no-fit") if fitted is None else LengthScaling(fitted, _code(fitted), int(total))


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
    influence_E = score_E2 @ np.linalg.inv(hessian)[:, 1]
    count_C = np.bincount(index_E, count_E)
    effective = float(count_C.sum()) ** 2 / float(count_C @ count_C)
    low, high = jackknife_ends(float(found[1]), np.bincount(index_E, influence_E), effective, confidence)
    return Interval(
        float(found[1]), low, high, confidence, int(count_C.sum()), len(count_C), "quasi-likelihood-by-prompt"
    )


def _code(exponent: Interval) -> Literal["below", "random_walk", "between", "biased", "cannot_tell"]:
    low, high = exponent.low, exponent.high
    if low is None or high is None or (low <= 0.5 <= high and not _NEAR_WALK[0] < low <= high < _NEAR_WALK[1]):
        return "cannot_tell"
    if high < 0.5:
        return "below"
    if low <= 0.5:
        return "random_walk"
    return "between" if high < 1 else "biased"
