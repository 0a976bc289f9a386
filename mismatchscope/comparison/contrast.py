"""Sums and differences of the mean TV of several pairs on the same tokens, the prompt as the unit.

Shapes: C prompts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import NotComparableError
from ..measures.accumulators import ClusterSums
from ..measures.intervals import ratio_interval
from ..measures.results import Interval
from .pair import PolicyPair
from .reduction import mean_of


def contrast(pairs: Sequence[PolicyPair], weights: Sequence[float], *, confidence: float = 0.95) -> Interval:
    """Σ wᵢ (mean TV of pair i); errors are taken together prompt by prompt, so what pairs have in common cancels.

    Raises `NotComparableError` where a pair has no estimate of its mean TV, or is of other tokens.
    """
    sums = [_tv_sums(pair, pairs[0]) for pair in pairs]
    clusters = max(len(each.by_cluster(1)[0]) for each in sums)
    found = [each.by_cluster(clusters) for each in sums]
    clusters = min(len(sum_C) for sum_C, _ in found)
    count_C = found[0][1][:clusters]
    if any(not np.array_equal(count_C, other_C[:clusters]) for _, other_C in found):
        raise NotComparableError("The pairs are not of the same tokens.")
    seen_C = count_C > 0
    total_C = sum(weight * sum_C[:clusters] for weight, (sum_C, _) in zip(weights, found, strict=True))
    return ratio_interval(np.asarray(total_C)[seen_C], count_C[seen_C], confidence=confidence)


def _tv_sums(pair: PolicyPair, first: PolicyPair) -> ClusterSums:
    """Sums by prompt, in the rows of the first pair."""
    sums = mean_of(pair.statistics, pair.context, "tv")
    if sums is None:
        raise NotComparableError("This evidence does not give the mean TV of a pair.")
    return sums if pair is first else pair.statistics.in_rows_of(first.statistics, sums)
