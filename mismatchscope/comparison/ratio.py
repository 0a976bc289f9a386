"""How many times as large is one mean as another, over the states of the same prompts?

Shapes: C clusters (prompts).
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from ..measures.accumulators import ClusterSums
from ..measures.intervals import jackknife_ends
from ..measures.results import Interval
from ..reports.pair_fields import CellRatio
from .pair import Pair


def ratio_of(ours: Pair, other: Pair, *, to: str) -> CellRatio | None:
    """The ratio of the two mean TVs, or of the mean |Δ log p| where not every distribution was seen whole.

    The states may be others, of the same prompts or some of them. None where the other gap is 0 or infinite.
    """
    exact = ours.statistics.all_exact and other.statistics.all_exact
    figure: Literal["tv", "abs_logprob_diff"] = "tv" if exact else "abs_logprob_diff"
    theirs = other.statistics.in_rows_of(ours.statistics, other.statistics.sums[figure])
    clusters = len(ours.statistics.prompts)
    interval = ratio_of_means(
        ours.statistics.sums[figure], theirs, clusters=clusters, confidence=ours.context.confidence
    )
    return None if interval is None else CellRatio(to=to, figure=figure, value=interval)


def ratio_of_means(ours: ClusterSums, other: ClusterSums, *, clusters: int, confidence: float) -> Interval | None:
    """The ratio of the two means, with the delete-one-prompt jackknife's interval of its logarithm.

    The rows of both are the same prompts; one may have no value of some of them. None where the other mean is 0 or
    one of the two is unknown or infinite.
    """
    if not (math.isfinite(ours.mean) and math.isfinite(other.mean) and other.mean > 0):
        return None
    value, n = ours.mean / other.mean, ours.n + other.n
    if clusters < 2:
        return Interval(value, None, None, confidence, n, clusters, "too-few-clusters")
    if value == 0:
        return Interval(0.0, 0.0, 0.0, confidence, n, clusters, "all-zero")
    (our_C, our_n_C), (other_C, other_n_C) = (
        [column[:clusters] for column in sums.by_cluster(clusters)] for sums in (ours, other)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        ours_without_C = (our_C.sum() - our_C) / (our_n_C.sum() - our_n_C)
        other_without_C = (other_C.sum() - other_C) / (other_n_C.sum() - other_n_C)
        shift_C = np.log(value) - np.log(ours_without_C / other_without_C)
    if not np.isfinite(shift_C).all():
        return Interval(value, None, None, confidence, n, clusters, "few-prompts-make-it")
    if np.ptp(shift_C) <= 1e-12:
        return Interval(value, None, None, confidence, n, clusters, "no-between-cluster-variance")
    count_C = our_n_C + other_n_C
    low, high = jackknife_ends(math.log(value), shift_C, n**2 / float(count_C @ count_C), confidence)
    with np.errstate(over="ignore"):
        return Interval(
            value, float(np.exp(low)), float(np.exp(high)), confidence, n, clusters, "cluster-jackknife-hall"
        )
