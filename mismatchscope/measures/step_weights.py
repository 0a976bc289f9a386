"""Importance weights of whole responses from sums by prompt: their mean and their effective sample size.

Shape suffixes: C clusters (prompts); G: log Σ ρ(y) and log Σ ρ(y)² of each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .intervals import NONNEGATIVE, UNIT, jackknife_ends, ratio_interval
from .results import Interval

Array = np.ndarray

_LEAST_SPREAD = 1e-12
"""Of the weights' squared coefficient of variation: below, float64 sums do not show it."""
_ALIKE, _LEAST_OF_A_GROUP = 1.25, 0.8


def mean_weight(log_CG: Array, whole_C: Array, *, confidence: float = 0.95) -> Interval:
    """Mean ρ(y), which is 1 − leak where the responses are μ's own; no value where it is beyond 1e308."""
    log_CG, whole_C = _present(log_CG, whole_C)
    if not len(whole_C):
        return Interval(None, None, None, confidence, 0, 0, "no-values")
    with np.errstate(over="ignore"):
        sum_C = np.exp(log_CG[:, 0])
    if not np.isfinite(sum_C.sum()):
        return Interval(None, None, None, confidence, int(whole_C.sum()), len(whole_C), "infinite")
    return ratio_interval(sum_C, whole_C, confidence=confidence, bounds=NONNEGATIVE)


def ess_interval(log_CG: Array, whole_C: Array, *, confidence: float = 0.95) -> Interval:
    """(Σ w)² / (S Σ w²) with a delete-one-prompt jackknife of the logarithm of the squared coefficient of
    variation.

    As in `weights`, but without its check of the tail, which needs every weight: a weight that is rarer than these
    responses show is in no interval. No ends with fewer than two prompts, or where one holds all that differs.
    """
    log_CG, whole_C = _present(log_CG, whole_C)
    total, clusters = float(whole_C.sum()), len(whole_C)
    if not clusters or not np.isfinite(log_CG[:, 0]).any():
        return Interval(None, None, None, confidence, int(total), clusters, "no-weights")
    # Relative to the largest, so that nothing overflows.
    largest = float(log_CG[:, 0].max())
    weight_C, square_C = np.exp(log_CG[:, 0] - largest), np.exp(log_CG[:, 1] - 2 * largest)
    spread = total * float(square_C.sum()) / float(weight_C.sum()) ** 2 - 1
    value = min(1.0, 1 / (1 + max(spread, 0.0)))
    if clusters < 2:
        return Interval(value, None, None, confidence, int(total), clusters, "too-few-clusters")
    others_C, rest_C = total - whole_C, weight_C.sum() - weight_C
    with np.errstate(divide="ignore", invalid="ignore"):
        spread_C = others_C * np.maximum(square_C.sum() - square_C, 0.0) / rest_C**2 - 1
    if not (spread > _LEAST_SPREAD and (spread_C > _LEAST_SPREAD).all()):
        return Interval(value, None, None, confidence, int(total), clusters, "no-between-cluster-variance")
    log_spread = math.log(spread)
    effective = total**2 / float(whole_C @ whole_C)
    low, high = jackknife_ends(log_spread, log_spread - np.log(spread_C), effective, confidence)
    ends = [1 / (1 + math.exp(min(end, 700.0))) for end in (high, low)]
    return Interval(
        value, min(ends[0], value), max(ends[1], value), confidence, int(total), clusters, "cluster-jackknife"
    )


def ess_of_groups(log_CG: Array, whole_C: Array, size: int, *, confidence: float = 0.95) -> Interval:
    """Mean ESS / S over groups of some `size` responses, of prompts in the order of their rows.

    What weights of many responses show of a tail those of few do not: ESS / S falls with S where nothing else
    changes, so steps of different sizes are compared in groups of one. No value with fewer responses than a group
    and a fifth less.
    """
    log_CG, whole_C = _present(log_CG, whole_C)
    total = float(whole_C.sum())
    if total < _LEAST_OF_A_GROUP * size:
        return Interval(None, None, None, confidence, int(total), len(whole_C), "too-few-responses")
    groups = max(1, int(total // size))
    group_C = np.minimum(((np.cumsum(whole_C) - whole_C) * groups / total).astype(int), groups - 1)
    start_G = np.flatnonzero(np.append(True, np.diff(group_C) > 0))
    if len(start_G) == 1:
        return ess_interval(log_CG, whole_C, confidence=confidence)
    log_G2 = np.logaddexp.reduceat(log_CG, start_G, axis=0)
    known_G = np.isfinite(log_G2[:, 0])
    size_G = np.add.reduceat(whole_C, start_G)[known_G]
    ess_G = np.minimum(np.exp(2 * log_G2[known_G, 0] - log_G2[known_G, 1]) / size_G, 1.0)
    if not len(ess_G):
        return Interval(None, None, None, confidence, int(total), len(whole_C), "no-weights")
    return ratio_interval(ess_G, np.ones(len(ess_G)), confidence=confidence, bounds=UNIT)


def comparable_size(whole_T: Sequence[Array]) -> int | None:
    """How many responses the groups have in which steps are compared; None where their numbers are alike.

    As many as nine steps in ten have at least, so that a short last step does not decide.
    """
    total_T = np.array([whole_C.sum() for whole_C in whole_T])
    size = int(np.quantile(total_T, 0.1, method="lower"))
    return None if size == 0 or total_T.max() <= _ALIKE * total_T.min() else size


def _present(log_CG: Array, whole_C: Array) -> tuple[Array, Array]:
    has_C = whole_C > 0
    return log_CG[has_C], whole_C[has_C]
