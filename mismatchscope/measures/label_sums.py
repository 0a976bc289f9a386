"""Sums by label and cluster: what every table of a log is made of.

Rows are kept sorted, one a pair of label and cluster that occurs. Beyond a number of rows clusters are put together
at random, by their hash: groups of independent clusters are independent too, so that intervals keep their level,
and memory stops growing. How many groups there are follows from the pairs that occur, not from their order.

Shape suffixes: U units that are added, E rows, L labels, F sums, G sums of exponentials.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray

MAX_ROWS = 2**17
_MOST_GROUPS, _FEWEST_GROUPS = 16, 4  # as powers of two
_PENDING = 2**15


class LabelSums:
    """Sums [E, F] of `sums` quantities, `logs` of them by the logarithm of what is summed, and one maximum [E]."""

    def __init__(self, sums: int, logs: int = 0, max_rows: int = MAX_ROWS) -> None:
        self._max_rows = max_rows
        self._groups: int | None = None
        """Clusters are put into 2^groups groups; None: each is for itself."""
        empty = np.zeros(0, dtype=np.int64)
        self._parts: list[tuple[Array, ...]] = [
            (empty, empty, np.zeros((0, sums)), np.zeros((0, logs)), np.zeros(0))
        ]
        self._pending = 0

    @property
    def grouped(self) -> bool:
        """Whether what counts as a cluster is a group of them."""
        self._compact()
        return self._groups is not None

    @property
    def label_E(self) -> Array:
        self._compact()
        return self._parts[0][0]

    @property
    def cluster_E(self) -> Array:
        """Their own labels, or where they are `grouped` the groups' numbers."""
        self._compact()
        return self._parts[0][1]

    @property
    def sum_EF(self) -> Array:
        self._compact()
        return self._parts[0][2]

    @property
    def log_EG(self) -> Array:
        """log Σ exp of what was added."""
        self._compact()
        return self._parts[0][3]

    @property
    def max_E(self) -> Array:
        self._compact()
        return self._parts[0][4]

    def add(
        self,
        label_U: Array,
        cluster_U: Array,
        sum_UF: Array,
        log_UG: Array | None = None,
        max_U: Array | None = None,
    ) -> None:
        """Units with their sums; no array may change afterwards."""
        units = len(label_U)
        log_UG = np.zeros((units, self._parts[0][3].shape[1])) if log_UG is None else log_UG
        max_U = np.zeros(units) if max_U is None else max_U
        self._take((label_U, _groups_of(cluster_U, None, self._groups), sum_UF, log_UG, max_U))

    def merge(self, other: LabelSums) -> None:
        """Take in what another one has seen."""
        other._compact()
        if other._groups is not None and (self._groups is None or other._groups < self._groups):
            self._compact()
            self._group_by(other._groups)
        label_E, cluster_E, *rest = other._parts[0]
        self._take((label_E, _groups_of(cluster_E, other._groups, self._groups), *rest))

    def labels(self) -> tuple[Array, Array]:
        """The labels, rising [L], and where the rows of each begin [L + 1]."""
        label_E = self.label_E
        start_L = np.flatnonzero(np.append(True, label_E[1:] != label_E[:-1])) if len(label_E) else label_E
        return label_E[start_L], np.append(start_L, len(label_E))

    def by_label(self) -> Array:
        """The sums of each label [L, F]."""
        _, start_L1 = self.labels()
        if len(start_L1) == 1:
            return self.sum_EF
        total: Array = np.add.reduceat(self.sum_EF, start_L1[:-1], axis=0)
        return total

    def __getstate__(self) -> dict[str, object]:
        self._compact()
        return self.__dict__.copy()

    def _take(self, part: tuple[Array, ...]) -> None:
        self._parts.append(part)
        self._pending += len(part[0])
        if self._pending > max(_PENDING, len(self._parts[0][0])):
            self._compact()

    def _compact(self) -> None:
        if len(self._parts) == 1:
            return
        columns = [np.concatenate(part) for part in zip(*self._parts, strict=True)]
        self._parts, self._pending = [_added_up(*columns)], 0
        while len(self._parts[0][0]) > self._max_rows and (self._groups or _MOST_GROUPS) > _FEWEST_GROUPS:
            self._group_by(_MOST_GROUPS if self._groups is None else self._groups - 1)

    def _group_by(self, groups: int) -> None:
        label_E, cluster_E, *rest = self._parts[0]
        self._parts = [_added_up(label_E, _groups_of(cluster_E, self._groups, groups), *rest)]
        self._groups = groups


def cluster_hash(cluster_U: Array) -> Array:
    """63 mixed bits of each label (the finaliser of splitmix64: Steele, Lea and Flood 2014)."""
    z_U = cluster_U.astype(np.int64).view(np.uint64).copy()
    z_U = (z_U ^ (z_U >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z_U = (z_U ^ (z_U >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z_U ^ (z_U >> np.uint64(31))) >> np.uint64(1)).astype(np.int64)


def _groups_of(cluster_U: Array, have: int | None, want: int | None) -> Array:
    """Clusters, or 2^`have` groups of them, as 2^`want` groups, not more: the last bits of a cluster's hash."""
    if want is None or have == want:
        return cluster_U
    hash_U = cluster_hash(cluster_U) if have is None else cluster_U
    group_U: Array = hash_U & np.int64(2**want - 1)
    return group_U


def _added_up(label_U: Array, cluster_U: Array, sum_UF: Array, log_UG: Array, max_U: Array) -> tuple[Array, ...]:
    """The columns of `add` with one row a pair of label and cluster, sorted."""
    if not len(label_U):
        return label_U, cluster_U, sum_UF, log_UG, max_U
    order_U = np.lexsort((cluster_U, label_U))
    label_U, cluster_U = label_U[order_U], cluster_U[order_U]
    start_E = np.flatnonzero(np.append(True, (np.diff(label_U) != 0) | (np.diff(cluster_U) != 0)))
    return (
        label_U[start_E],
        cluster_U[start_E],
        np.add.reduceat(sum_UF[order_U], start_E, axis=0),
        np.logaddexp.reduceat(log_UG[order_U], start_E, axis=0),
        np.maximum.reduceat(max_U[order_U], start_E),
    )
