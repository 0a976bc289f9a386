"""By how much a mean changes with one more of a number that every token has, the prompt as the unit.

Shape suffixes: E rows, one a pair of number and cluster; C clusters.
"""

from __future__ import annotations

import numpy as np

from .intervals import jackknife_ends
from .results import Interval

Array = np.ndarray


def slope_of_means(
    number_E: Array, cluster_E: Array, sum_E: Array, count_E: Array, *, confidence: float = 0.95
) -> Interval:
    """Least-squares slope over tokens of a value on a number, from sums and counts by number and cluster.

    A cluster's influence is linearised, as in a sandwich estimate of the error (Liang and Zeger 1986). No ends with
    fewer than two clusters; no value where the number does not vary.
    """
    total = float(count_E.sum())
    centred_E = number_E - float(number_E @ count_E) / total
    spread = float(count_E @ centred_E**2)
    count_C = np.bincount(cluster_E, count_E)
    clusters = int((count_C > 0).sum())
    if spread == 0:
        return Interval(None, None, None, confidence, int(total), clusters, "one-number")
    value = float(centred_E @ sum_E) / spread
    residual_E = sum_E - count_E * (float(sum_E.sum()) / total + value * centred_E)
    influence_C = np.bincount(cluster_E, centred_E * residual_E)[count_C > 0] / spread
    if clusters < 2 or not np.isfinite(value):
        return Interval(value, None, None, confidence, int(total), clusters, "too-few-clusters")
    if not influence_C.any():
        return Interval(value, value, value, confidence, int(total), clusters, "on-a-line")
    count_C = count_C[count_C > 0]
    low, high = jackknife_ends(value, influence_C, total**2 / float(count_C @ count_C), confidence)
    return Interval(value, low, high, confidence, int(total), clusters, "cluster-linearised")
