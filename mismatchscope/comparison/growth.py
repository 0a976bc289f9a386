"""Does the gap grow along the response? Its later half against its earlier half.

Shapes: N states of a block, C clusters (prompts), H = 2 halves of a response.
"""

from __future__ import annotations

import math

import numpy as np

from ..measures.accumulators import Clusters, ClusterSums
from ..measures.intervals import jackknife_ends
from ..measures.results import Interval
from .pair import Pair
from .paired_states import figures_by_state


def growth_of(pair: Pair) -> Interval | None:
    """Mean TV in the later halves of the responses over that in the earlier halves; the prompt is the unit.

    The middle token of an odd number of them is in neither half. Reads the pair once more. None where no state of
    an earlier half has a TV, or all of them are 0.
    """
    clusters, halves_H = Clusters(), (ClusterSums(), ClusterSums())
    for block in figures_by_state(pair):
        known_N = np.isfinite(block["tv"])
        half_N = _half(block["place"])
        row_N = clusters.rows(block["prompt"])
        for half, sums in enumerate(halves_H):
            in_N = known_N & (half_N == half)
            value_N = block["tv"][in_N]
            sums.add(row_N[in_N], value_N, np.ones(len(value_N), dtype=np.int64), value_N)
    return _ratio(*halves_H, clusters=len(clusters), confidence=pair.context.confidence)


def _half(place_N: np.ndarray) -> np.ndarray:
    """0 in the earlier half of a response, 1 in the later one, −1 in the middle; whole responses, in order."""
    sequence_N, position_N = place_N >> 32, place_N & 0xFFFFFFFF
    _, start_S = np.unique(sequence_N, return_index=True)
    end_S = np.append(start_S[1:], len(place_N))
    length_N = np.repeat(position_N[end_S - 1] + 1, end_S - start_S)
    middle_N = 2 * position_N + 1
    return np.select([middle_N < length_N, middle_N > length_N], [0, 1], -1)


def _ratio(earlier: ClusterSums, later: ClusterSums, *, clusters: int, confidence: float) -> Interval | None:
    """The ratio of the two means, with the delete-one-prompt jackknife's interval of its logarithm."""
    if not earlier.n or not later.n or not earlier.mean > 0:
        return None
    value, n = later.mean / earlier.mean, earlier.n + later.n
    if clusters < 2:
        return Interval(value, None, None, confidence, n, clusters, "too-few-clusters")
    (early_C, early_n_C), (late_C, late_n_C) = (
        [column[:clusters] for column in sums.by_cluster(clusters)] for sums in (earlier, later)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        late_without_C = (late_C.sum() - late_C) / (late_n_C.sum() - late_n_C)
        early_without_C = (early_C.sum() - early_C) / (early_n_C.sum() - early_n_C)
        shift_C = np.log(value) - np.log(late_without_C / early_without_C)
    if not np.isfinite(shift_C).all():
        return Interval(value, None, None, confidence, n, clusters, "few-prompts-make-it")
    if np.ptp(shift_C) <= 1e-12:
        return Interval(value, None, None, confidence, n, clusters, "no-between-cluster-variance")
    count_C = early_n_C + late_n_C
    low, high = jackknife_ends(math.log(value), shift_C, n**2 / float(count_C @ count_C), confidence)
    with np.errstate(over="ignore"):
        return Interval(
            value, float(np.exp(low)), float(np.exp(high)), confidence, n, clusters, "cluster-jackknife-hall"
        )
