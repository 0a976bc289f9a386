"""Does the gap grow along the response? Its later half against its earlier half.

Shapes: N states of a block, C clusters (prompts), H = 2 halves of a response.
"""

from __future__ import annotations

import numpy as np

from ..measures.accumulators import Clusters, ClusterSums
from ..measures.results import Interval
from .pair import Pair
from .paired_states import figures_by_state
from .ratio import ratio_of_means


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
    earlier, later = halves_H
    return ratio_of_means(later, earlier, clusters=len(clusters), confidence=pair.context.confidence)


def _half(place_N: np.ndarray) -> np.ndarray:
    """0 in the earlier half of a response, 1 in the later one, −1 in the middle; whole responses, in order."""
    sequence_N, position_N = place_N >> 32, place_N & 0xFFFFFFFF
    _, start_S = np.unique(sequence_N, return_index=True)
    end_S = np.append(start_S[1:], len(place_N))
    length_N = np.repeat(position_N[end_S - 1] + 1, end_S - start_S)
    middle_N = 2 * position_N + 1
    return np.select([middle_N < length_N, middle_N > length_N], [0, 1], -1)
