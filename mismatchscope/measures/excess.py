"""Is one mean larger than another, or no larger than a margin? Paired by prompt, with both claims' errors in view.

Not finding a difference is no finding of equality: a wide interval holds zero too. That two means are alike is
claimed by an equivalence test alone (Schuirmann 1987), here one-sided: the excess ends below a margin.

Shape suffixes: C clusters (prompts).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .accumulators import ClusterSums, paired
from .intervals import ratio_interval, required_clusters
from .results import Interval

Array = np.ndarray

SEEN = 0.95
"""No claim of equivalence from fewer prompts than show what 5 % of prompts do, with the interval's confidence."""
# A prompt stands out whose excess alone is this share of what the margin allows all prompts together, and which is
# this many times further above its own floor than any prompt is below its own, each relative to the sum of the two.
# Where the two means have one law, above and below are alike. By simulation: benchmarks/calibration_finding.py.
_MATERIAL = 0.01
_APART = 1.5


@dataclass(frozen=True)
class Excess:
    """`difference` is the mean less the floor's; `margin` the largest difference that counts as none.

    `above`: the whole interval of the difference lies above 0. `within`: the difference is below the margin, with
    the confidence of the interval's upper end. Neither: `needed_clusters` would likely decide, None where that
    cannot be told. Both: it is there, and it is small.
    """

    difference: Interval
    margin: float
    above: bool
    within: bool
    needed_clusters: int | None


def excess_of(ours: ClusterSums, floor: ClusterSums, *, margin: float, confidence: float = 0.95) -> Excess:
    """The excess of one mean over another, of values of the same tokens of the same clusters.

    `margin` is in multiples of the floor's mean. As that is an estimate too, the difference is held against the
    margin prompt by prompt. Few prompts may not have a rare large one among them, so `within` also needs enough
    prompts (`SEEN`) and none that stands out.

    Raises `NotComparableError` where the counts differ.
    """
    sum_C, floor_C, count_C = paired(ours, floor)
    allowed = margin * float(floor_C.sum()) / float(count_C.sum())
    difference_C = sum_C - floor_C
    if difference_C.size > 1 and not difference_C.any():
        nothing = Interval(0.0, 0.0, 0.0, confidence, int(count_C.sum()), difference_C.size, "all-zero")
        enough = difference_C.size >= required_clusters(SEEN, confidence)
        needed = None if enough else required_clusters(SEEN, confidence)
        return Excess(nothing, allowed, False, enough and allowed > 0, needed if allowed > 0 else None)
    difference = ratio_interval(difference_C, count_C, confidence=confidence)
    beyond = ratio_interval(difference_C - margin * floor_C, count_C, confidence=confidence)
    above = difference.low is not None and difference.low > 0
    apart = bool(_stands_out(difference_C, sum_C + floor_C, margin * float(floor_C.sum())).any())
    within = (
        not apart
        and difference_C.size >= required_clusters(SEEN, confidence)
        and difference.high is not None
        and beyond.high is not None
        and difference.high < allowed
        and beyond.high < 0
    )
    needed = None if above or within else _needed(difference, beyond, confidence, apart=apart)
    return Excess(difference, allowed, above, within, needed)


def _stands_out(difference_C: Array, both_C: Array, allowed: float) -> Array:
    """Which clusters are above their floor as no cluster is below its own."""
    relative_C = np.divide(difference_C, both_C, out=np.zeros(len(both_C)), where=both_C > 0)
    return (difference_C > _MATERIAL * allowed) & (relative_C > _APART * max(0.0, float(-relative_C.min())))


def _needed(difference: Interval, beyond: Interval, confidence: float, *, apart: bool) -> int | None:
    """The fewest clusters at which one of the two claims would hold if the estimates stayed where they are.

    Widths fall with the root of the number of clusters.
    """
    clusters, found = difference.clusters, []
    if difference.low is not None and difference.value is not None and difference.value > 0:
        found.append(clusters * ((difference.value - difference.low) / difference.value) ** 2)
    if beyond.high is not None and beyond.value is not None and beyond.value < 0 and not apart:
        enough = clusters * ((beyond.high - beyond.value) / beyond.value) ** 2
        found.append(max(enough, required_clusters(SEEN, confidence)))
    finite = [each for each in found if math.isfinite(each)]
    return max(clusters + 1, math.ceil(min(finite))) if finite else None
