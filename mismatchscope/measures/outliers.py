"""Which labels' means are apart from those of the others, at a stated rate of error over all of them.

Were all labels alike, their prompts' sums could as well have fallen to any other: so the largest deviation of a
label is held against the largest ones after the sums were dealt out anew (a permutation test of the maximum:
Westfall and Young 1993), which needs no law of the sums. Mismatch is so skewed that a t test of each label finds
one in up to three of four logs that have none. Where most prompts are shared by labels what a prompt has in common
is taken out first. A label that is apart also moves the mean of the others: the clearest one is set aside and the
rest is looked at again, as long as it is the majority.

Shape suffixes: E rows, one a pair of label and cluster that occurs; L labels, C clusters.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray

MIN_CLUSTERS = 8
"""A label with fewer prompts is not tested."""
_DEALS, _DEALS_OF_MANY = 499, 199
_MANY = 10_000


def means_apart(
    label_E: Array, cluster_E: Array, sum_E: Array, count_E: Array, labels: int, clusters: int, level: float = 0.05
) -> Array:
    """p-value of each label [L], adjusted for their number; NaN where a label has too few clusters or is alone.

    `label_E` and `cluster_E` are numbers below `labels` and `clusters`; `sum_E` is of `count_E` values. Below
    `level` a label is apart. Where no majority of labels is alike each is held against all, so that all may be.
    """
    tested_L = np.bincount(label_E, minlength=labels) >= MIN_CLUSTERS
    p_value_L = np.full(labels, np.nan)
    inside_L, first_L, least = tested_L.copy(), p_value_L, 0.0
    while inside_L.sum() > 1:
        kept_E = inside_L[label_E]
        p_L, clearest = _p_values(
            label_E[kept_E], cluster_E[kept_E], sum_E[kept_E], count_E[kept_E], labels, clusters
        )
        least = max(least, float(p_L[clearest]))
        p_value_L = np.where(inside_L, np.maximum(p_L, least), p_value_L)
        first_L = p_value_L if inside_L.sum() == tested_L.sum() else first_L
        if least >= level:
            return p_value_L
        inside_L[clearest] = False
        if inside_L.sum() <= tested_L.sum() / 2:
            return first_L
    return p_value_L


def _p_values(
    label_E: Array, cluster_E: Array, sum_E: Array, count_E: Array, labels: int, clusters: int
) -> tuple[Array, int]:
    """Of the labels that occur, all at once [L], 1 of the others; and the label that deviates most."""
    order_E = np.argsort(cluster_E, kind="stable")
    label_E, cluster_E, sum_E, count_E = (each[order_E] for each in (label_E, cluster_E, sum_E, count_E))
    rows, size_C = len(label_E), np.bincount(cluster_E, minlength=clusters)
    start_E, size_E = (np.cumsum(size_C) - size_C)[cluster_E], size_C[cluster_E]
    shared = count_E[size_E > 1].sum() > count_E.sum() / 2
    total_C, sum_C = (np.bincount(cluster_E, each_E, minlength=clusters) for each_E in (count_E, sum_E))
    if shared:  # what a row has more than its count would at the mean of its cluster
        residual_E = sum_E - count_E * (sum_C / np.maximum(total_C, 1))[cluster_E]
        square_E = (np.bincount(cluster_E, residual_E**2, minlength=clusters) / np.maximum(size_C, 1))[cluster_E]
    else:  # at the mean of all
        residual_E = sum_E - count_E * (sum_E.sum() / count_E.sum())
        residual_E -= residual_E.mean()
        square_E = np.full(rows, np.mean(residual_E**2))
    variance_L = np.bincount(label_E, square_E, minlength=labels)
    scale_L = np.where(variance_L > 0, 1 / np.sqrt(np.where(variance_L > 0, variance_L, 1.0)), 0.0)
    rng = np.random.default_rng([rows, labels])

    def deviation(dealt_E: Array) -> Array:
        return np.abs(np.bincount(label_E, dealt_E, minlength=labels)) * scale_L

    def dealt_anew() -> Array:
        """Within each cluster the rows move round by a random number of places; else any row goes anywhere."""
        if not shared:
            return rng.permutation(residual_E)
        place_E = np.arange(rows) - start_E + rng.integers(2**31, size=clusters)[cluster_E]
        return residual_E[start_E + place_E % size_E]

    found_L = deviation(residual_E)
    deals = _DEALS if rows <= _MANY else _DEALS_OF_MANY
    largest_D = np.sort([deviation(dealt_anew()).max() for _ in range(deals)])
    tolerance = 1e-9 * float(found_L.max())  # sums of equal terms in another order
    beyond_L = deals - np.searchsorted(largest_D, found_L - tolerance, side="left")
    occurs_L = np.bincount(label_E, minlength=labels) > 0
    return np.where(occurs_L, (1 + beyond_L) / (deals + 1), 1.0), int(np.argmax(np.where(occurs_L, found_L, -1.0)))
