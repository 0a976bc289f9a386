"""Which labels' sums are apart from what is expected of them, at a stated rate of error over all labels.

Were all labels alike, their rows' residuals could as well have fallen to any other label: so the largest deviation
of a label is held against the largest ones after the residuals were dealt out anew (a permutation test of the
maximum: Westfall and Young 1993). A deviation is in units of its own label's spread, so that labels may have rows
of other sizes, and rows with more tokens vary more (Janssen 1997; Chung and Romano 2013); its t quantile, so that
labels may have few rows or many. Mismatch is so skewed that a t test of each label alone finds one in up to three
of four logs that have none.

A label that has most of its expected sum in clusters that other labels have too is judged by those: what such a
cluster has in common is taken out, and its residuals stay in it. Other labels are judged by the clusters that they
have to themselves. A label that is apart also moves what is expected of the others: of those that are, the one
with the largest deviation relative to what is expected is set aside and the rest is looked at again, as long as it
is the majority.

Shape suffixes: E rows, one a pair of label and cluster that occurs; L labels, C clusters, A rows that are alone in
their cluster, D deals.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray

MIN_CLUSTERS = 8
"""A label with fewer prompts is not tested."""
_DEALS, _DEALS_OF_MANY = 499, 199
_MANY = 10_000
_VALUES_AT_ONCE = 2**18


def means_apart(
    label_E: Array,
    cluster_E: Array,
    sum_E: Array,
    expected_E: Array,
    labels: int,
    clusters: int,
    level: float = 0.05,
) -> Array:
    """p-value of each label [L], adjusted for their number; NaN where a label has too few clusters or is alone.

    `label_E` and `cluster_E` are numbers below `labels` and `clusters`; `expected_E` is above 0 and, up to one
    factor for all, what each sum would be were all labels alike. Below `level` a label is apart. Where no majority
    of labels is alike each is held against all, so that all may be.
    """
    tested_L = np.bincount(label_E, minlength=labels) >= MIN_CLUSTERS
    p_value_L = np.full(labels, np.nan)
    inside_L, first_L, least = tested_L.copy(), p_value_L, 0.0
    while inside_L.sum() > 1:
        kept_E = inside_L[label_E]
        p_L, deviation_L = _p_values(
            label_E[kept_E], cluster_E[kept_E], sum_E[kept_E], expected_E[kept_E], labels, clusters
        )
        least = max(least, float(p_L.min()))
        p_value_L = np.where(inside_L, np.maximum(p_L, least), p_value_L)
        first_L = p_value_L if inside_L.sum() == tested_L.sum() else first_L
        if least >= level:
            return p_value_L
        inside_L[np.argmax(np.where(p_L < level, deviation_L, -1.0))] = False
        if inside_L.sum() <= tested_L.sum() / 2:
            return first_L
    return p_value_L


def _p_values(
    label_E: Array, cluster_E: Array, sum_E: Array, expected_E: Array, labels: int, clusters: int
) -> tuple[Array, Array]:
    """Of the labels that occur, all at once [L], 1 of the others; and the relative deviation of each [L]."""
    from scipy.special import stdtr

    order_E = np.argsort(cluster_E, kind="stable")
    label_E, cluster_E, sum_E, expected_E = (each[order_E] for each in (label_E, cluster_E, sum_E, expected_E))
    rows, size_C = len(label_E), np.bincount(cluster_E, minlength=clusters)
    start_E, size_E = (np.cumsum(size_C) - size_C)[cluster_E], size_C[cluster_E]
    place_E, alone_E = np.arange(rows) - start_E, size_E == 1
    residual_E = _residuals(cluster_E, sum_E, expected_E, alone_E)
    of_alone_L, of_all_L = (np.bincount(label_E, expected_E * of_E, minlength=labels) for of_E in (alone_E, 1.0))
    judged_E = alone_E == (2 * of_alone_L > of_all_L)[label_E]
    judged_L = np.bincount(label_E, judged_E, minlength=labels)
    alone_A = np.flatnonzero(alone_E)
    rng = np.random.default_rng([rows, labels])

    def clearness(dealt_DE: Array) -> Array:
        """−log p of each label's t [D, L] as of normal residuals: one scale for labels of few rows and of many."""
        place_DE = np.arange(len(dealt_DE))[:, None] * labels + label_E
        value_DE = np.where(judged_E, dealt_DE, 0.0)
        sum_DL, square_DL = (
            np.bincount(place_DE.ravel(), each_DE.ravel(), minlength=len(dealt_DE) * labels).reshape(-1, labels)
            for each_DE in (value_DE, value_DE**2)
        )
        share_DL = sum_DL**2 / np.where(square_DL > 0, square_DL, 1.0)
        t_DL = np.sqrt((judged_L - 1) * share_DL / np.maximum(judged_L - share_DL, 1e-12 * judged_L + 1e-300))
        p_DL: Array = stdtr(np.maximum(judged_L - 1, 1), -t_DL)
        return -np.log(np.maximum(p_DL, 1e-300))

    def dealt_anew(times: int) -> Array:
        """Within each cluster the rows move round by a random number of places; those alone in one go anywhere."""
        moved_DE = rng.integers(2**31, size=(times, clusters))[:, cluster_E]
        from_DE = start_E + (place_E + moved_DE) % size_E
        from_DE[:, alone_A] = rng.permuted(np.broadcast_to(alone_A, (times, len(alone_A))), axis=1)
        return residual_E[from_DE]

    found_L = clearness(residual_E[None])[0]
    deals = _DEALS if rows <= _MANY else _DEALS_OF_MANY
    at_once = max(1, _VALUES_AT_ONCE // rows)
    parts = [min(at_once, deals - done) for done in range(0, deals, at_once)]
    largest_D = np.sort(np.concatenate([clearness(dealt_anew(times)).max(axis=1) for times in parts]))
    tolerance = 1e-9 * float(found_L.max())  # sums of equal terms in another order
    beyond_L = deals - np.searchsorted(largest_D, found_L - tolerance, side="left")
    occurs_L = np.bincount(label_E, minlength=labels) > 0
    deviation_L = np.abs(np.bincount(label_E, np.where(judged_E, residual_E, 0.0), minlength=labels))
    expected_L = np.bincount(label_E, np.where(judged_E, expected_E, 0.0), minlength=labels)
    p_value_L = np.where(occurs_L, (1 + beyond_L) / (deals + 1), 1.0)
    return p_value_L, deviation_L / np.where(expected_L > 0, expected_L, np.inf)


def _residuals(cluster_E: Array, sum_E: Array, expected_E: Array, alone_E: Array) -> Array:
    """What each sum has more than expected at the rate of its cluster, in units of that rate, so that no cluster of
    a large rate decides; at the rate of all of them where it is alone in one."""
    rate_C = np.bincount(cluster_E, sum_E) / np.maximum(np.bincount(cluster_E, expected_E), 1e-300)
    rate_E = rate_C[cluster_E]
    if alone_E.any():
        rate_E = np.where(alone_E, sum_E[alone_E].sum() / max(expected_E[alone_E].sum(), 1e-300), rate_E)
    residual_E: Array = sum_E / np.where(rate_E > 0, rate_E, 1.0) - np.where(rate_E > 0, expected_E, 0.0)
    return residual_E
