"""The interval of `intervals.ratio_interval` for many labels at once: a run has thousands of steps.

Shape suffixes: E rows, one a pair of label and cluster, those of a label adjacent; L labels, G grid points.
"""

from __future__ import annotations

import math

import numpy as np

from .intervals import ANY
from .results import Interval

Array = np.ndarray


def label_intervals(
    sum_E: Array,
    count_E: Array,
    start_L1: Array,
    *,
    confidence: float = 0.95,
    bounds: tuple[float, float] = ANY,
) -> list[Interval]:
    """Pooled mean Σ sum / Σ count of each label and its interval, the cluster as the unit.

    Row E of label l is in `start_L1[l]` up to `start_L1[l + 1]`; clusters with count 0 have no part. As in
    `sums_interval` an infinite sum makes the mean and its ends infinite (unknown where both infinities occur), and
    sums that are all 0 make an interval without width. No value without a count, no ends with fewer than two
    clusters or where they do not differ.
    """
    labels = len(start_L1) - 1
    has_E = count_E > 0
    label_E = np.repeat(np.arange(labels), np.diff(start_L1))[has_E]
    sum_E, count_E = sum_E[has_E].astype(float), count_E[has_E].astype(float)
    infinite_E = ~np.isfinite(sum_E)

    def total(value_E: Array) -> Array:
        return np.bincount(label_E, value_E, minlength=labels)

    def largest(value_E: Array) -> Array:
        top_L = np.zeros(labels)
        np.maximum.at(top_L, label_E, np.abs(value_E))
        return top_L

    clusters_L, count_L, infinite_L = np.bincount(label_E, minlength=labels), total(count_E), total(infinite_E) > 0
    with np.errstate(invalid="ignore"):
        unlimited_L = total(sum_E)
    sum_E = np.where(infinite_E, 0.0, sum_E)
    with np.errstate(divide="ignore", invalid="ignore"):
        value_L = total(sum_E) / count_L
        residual_E = sum_E - value_L[label_E] * count_E
        alike_L = largest(residual_E) <= 1e-12 * largest(sum_E)
        effective_L = count_L**2 / total(count_E**2)
        shift_E = residual_E / (count_L[label_E] - count_E)
        low_L, high_L = _ends(value_L, shift_E, label_E, clusters_L, effective_L, confidence)
        low_L = np.minimum(np.maximum(low_L, bounds[0]), value_L)
        high_L = np.maximum(np.minimum(high_L, bounds[1]), value_L)
    zero_L = largest(sum_E) == 0
    found = []
    for each in range(labels):
        n, clusters = int(count_L[each]), int(clusters_L[each])
        value, low, high = (float(ends[each]) for ends in (value_L, low_L, high_L))
        if not clusters:
            found.append(Interval(None, None, None, confidence, 0, 0, "no-values"))
        elif infinite_L[each]:
            limit = None if math.isnan(unlimited_L[each]) else float(unlimited_L[each])
            found.append(Interval(limit, limit, limit, confidence, n, clusters, "infinite"))
        elif clusters > 1 and zero_L[each]:
            found.append(Interval(0.0, 0.0, 0.0, confidence, n, clusters, "all-zero"))
        elif clusters < 2 or alike_L[each]:
            reason = "too-few-clusters" if clusters < 2 else "no-between-cluster-variance"
            found.append(Interval(value, None, None, confidence, n, clusters, reason))
        else:
            found.append(Interval(value, low, high, confidence, n, clusters, "cluster-jackknife-hall"))
    return found


def _ends(
    value_L: Array, shift_E: Array, label_E: Array, clusters_L: Array, effective_L: Array, confidence: float
) -> tuple[Array, Array]:
    """As `intervals.jackknife_ends`."""
    from scipy.special import stdtrit

    labels = len(value_L)

    def mean(of_E: Array) -> Array:
        return np.bincount(label_E, of_E, minlength=labels) / clusters_L

    shift_E = shift_E - mean(shift_E)[label_E]
    error_L = np.sqrt((clusters_L - 1) * mean(shift_E**2))
    t_L = stdtrit(np.maximum(1.0, effective_L - 1), 0.5 + confidence / 2)
    top_L = np.zeros(labels)
    np.maximum.at(top_L, label_E, np.abs(shift_E))
    scaled_E = shift_E / top_L[label_E]
    skew_L = mean(scaled_E**3) / mean(scaled_E**2) ** 1.5
    skew_L = np.where(clusters_L < 3, 0.0, skew_L * np.sqrt(clusters_L * (clusters_L - 1)) / (clusters_L - 2))
    root_L = np.sqrt(clusters_L)
    g_L = np.abs(skew_L) / root_L * (1 + 4 / root_L)
    g_LG = np.linspace(0.02, 1, 50) * g_L[:, None]
    hall_L = np.max(3 / g_LG * (1 - np.cbrt(1 - g_LG * (t_L[:, None] + g_LG / 6))), axis=1)
    long_L = np.where(g_L < 1e-9, t_L, np.maximum(t_L, hall_L))
    low_L = value_L - error_L * np.where(skew_L < 0, long_L, t_L)
    return low_L, value_L + error_L * np.where(skew_L > 0, long_L, t_L)
