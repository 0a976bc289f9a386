"""Sums that everything else is a function of: filled a chunk at a time, merged in any order, no larger for more
tokens.

A chunk of whole sequences adds to an accumulator; two accumulators of different sequences merge into that of both,
and whatever the chunks and their order were, the result is the same but for the rounding of float64 sums. The
prompt is the unit of independence, so sums and maxima are kept by prompt (the *cluster*). Quantiles: `sketches`.

Shape suffixes: N tokens, S sequences of a chunk, U units with a value (of a chunk), C clusters, B bins.
"""

from __future__ import annotations

import math

import numpy as np

from ..errors import NotComparableError
from . import kernel
from .intervals import ANY, sums_interval
from .results import Interval
from .token_sums import TokenSums

Array = np.ndarray


class Clusters:
    """Numbers the clusters as their labels are first seen: the rows of all per-cluster arrays."""

    def __init__(self) -> None:
        self._rows: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def labels(self) -> Array:
        """The label of each row, int64 [C]."""
        return np.fromiter(self._rows, dtype=np.int64, count=len(self._rows))

    def rows(self, label_U: Array) -> Array:
        """The row of each label, int64 [U]; labels not seen before get the next rows."""
        distinct, inverse_U = np.unique(label_U, return_inverse=True)
        rows = self._rows
        return np.array([rows.setdefault(label, len(rows)) for label in distinct.tolist()], dtype=np.int64)[
            inverse_U
        ]


class ClusterSums:
    """Sum and count of a quantity by cluster, and its smallest and largest value: what an interval needs."""

    def __init__(self) -> None:
        self._sum_C, self._count_C = np.zeros(0), np.zeros(0, dtype=np.int64)
        self.smallest, self.largest = math.inf, -math.inf

    @classmethod
    def of(cls, value_N: Array, cluster_N: Array) -> ClusterSums:
        """Filled at once, from one value a token."""
        sums = cls()
        sums.add(Clusters().rows(cluster_N), value_N, np.ones(len(value_N), dtype=np.int64), value_N)
        return sums

    @property
    def n(self) -> int:
        return int(self._count_C.sum())

    @property
    def mean(self) -> float:
        """Pooled over all values; NaN where there are none."""
        if self.n and (math.isinf(self.smallest) or math.isinf(self.largest)):
            return math.inf if math.isinf(self.largest) else -math.inf
        return float(self._sum_C.sum()) / self.n if self.n else math.nan

    def add(self, row_U: Array, sum_U: Array, count_U: Array, value_N: Array) -> None:
        """Sums and counts of units that belong to the clusters at `row_U`; `value_N` are the values in them."""
        if value_N.size:
            self.add_sums(row_U, sum_U, count_U, float(value_N.min()), float(value_N.max()))

    def add_sums(self, row_U: Array, sum_U: Array, count_U: Array, smallest: float, largest: float) -> None:
        """As `add`, where the extremes of the values are known; there is at least one value."""
        self._grow(int(row_U.max()) + 1)
        np.add.at(self._sum_C, row_U, sum_U)
        np.add.at(self._count_C, row_U, count_U)
        self.smallest, self.largest = min(self.smallest, smallest), max(self.largest, largest)

    def merge(self, other: ClusterSums, row_C: Array) -> None:
        """Take in what another one has seen; `row_C` is the row here of each of its clusters."""
        if not other.n:
            return
        clusters = min(len(row_C), len(other._sum_C))  # either may have room for more
        row_C = row_C[:clusters]
        self._grow(int(row_C.max()) + 1)
        self._sum_C[row_C] += other._sum_C[:clusters]
        self._count_C[row_C] += other._count_C[:clusters]
        self.smallest, self.largest = min(self.smallest, other.smallest), max(self.largest, other.largest)

    def by_cluster(self, clusters: int | None = None) -> tuple[Array, Array]:
        """Sums and counts [C]: of all `clusters`, or of those that have a value."""
        if clusters is not None:
            self._grow(clusters)
            return self._sum_C, self._count_C
        seen_C = self._count_C > 0
        return self._sum_C[seen_C], self._count_C[seen_C]

    def interval(self, *, confidence: float = 0.95, bounds: tuple[float, float] = ANY) -> Interval:
        """The pooled mean and its interval: see `intervals.clustered_mean`, which says what it raises."""
        sum_C, count_C = self.by_cluster()
        return sums_interval(sum_C, count_C, (self.smallest, self.largest), confidence=confidence, bounds=bounds)

    def _grow(self, clusters: int) -> None:
        self._sum_C, self._count_C = grown(self._sum_C, clusters, 0.0), grown(self._count_C, clusters, 0)


def paired(a: ClusterSums, b: ClusterSums) -> tuple[Array, Array, Array]:
    """Both sums and the counts [C] of the same tokens of the same clusters, whose rows are the same in both.

    Raises `NotComparableError` where the counts differ.
    """
    clusters = max(len(sums._sum_C) for sums in (a, b))
    (sum_a_C, count_C), (sum_b_C, count_b_C) = a.by_cluster(clusters), b.by_cluster(clusters)
    clusters = min(len(sum_a_C), len(sum_b_C))  # either may have room for more
    if not np.array_equal(count_C[:clusters], count_b_C[:clusters]):
        raise NotComparableError("The two means are not of the same tokens.")
    seen_C = count_C[:clusters] > 0
    return sum_a_C[:clusters][seen_C], sum_b_C[:clusters][seen_C], count_C[:clusters][seen_C]


class ClusterExceedance:
    """How many states of each cluster lie beyond each threshold, and the largest value of each cluster."""

    def __init__(self, taus: tuple[float, ...]) -> None:
        self.taus = taus
        self._count_CB = np.zeros((0, len(taus) + 1), dtype=np.int64)
        self._max_C = np.zeros(0)

    def add(self, row_S: Array, start_S: Array, value_N: Array) -> None:
        """`value_N` of sequences that begin at `start_S` and belong to the clusters at `row_S`."""
        library = kernel.library()
        if library is not None and self.taus[0] > 0:
            self._grow(int(row_S.max()) + 1)
            offsets_S1, taus = np.append(start_S, value_N.size), np.array(self.taus)
            library.exceedance_counts(
                *(kernel.address(np.ascontiguousarray(value_N)), kernel.address(offsets_S1, np.int64)),
                *(kernel.address(row_S, np.int64), len(row_S), kernel.address(taus), taus.size),
                *(kernel.address(self._count_CB, np.int64), kernel.address(self._max_C)),
            )
            return
        bin_N = np.searchsorted(self.taus, value_N, side="left")
        self.add_bins(row_S, np.diff(start_S, append=value_N.size), bin_N)
        np.maximum.at(self._max_C, row_S, np.maximum.reduceat(value_N, start_S))

    def add_bins(self, row_S: Array, length_S: Array, bin_N: Array) -> None:
        """Values by their bins alone, `length_S` of each sequence; their maxima stay unknown.

        Bin b holds the values in (taus[b - 1], taus[b]]: a value beyond a threshold is in a later bin.
        """
        self._grow(int(row_S.max()) + 1)
        bins = len(self.taus) + 1
        count_SB = np.bincount(
            np.repeat(np.arange(len(row_S)) * bins, length_S) + bin_N, minlength=len(row_S) * bins
        )
        np.add.at(self._count_CB, row_S, count_SB.reshape(-1, bins))

    def counts(self, clusters: int) -> Array:
        """The counts of at least so many clusters by bin, int64 [C, taus + 1], to be added to in place."""
        self._grow(clusters)
        return self._count_CB

    def merge(self, other: ClusterExceedance, row_C: Array) -> None:
        """Take in what another one has seen; `row_C` is the row here of each of its clusters; some may share it."""
        clusters = min(len(row_C), len(other._max_C))  # either may have room for more
        if not clusters:
            return
        row_C = row_C[:clusters]
        self._grow(int(row_C.max()) + 1)
        np.add.at(self._count_CB, row_C, other._count_CB[:clusters])
        np.maximum.at(self._max_C, row_C, other._max_C[:clusters])

    def seen(self) -> tuple[Array, Array]:
        """(largest value [C], states beyond each threshold [C, taus]) of the clusters that have any state."""
        seen_C = self._count_CB.any(axis=1)
        beyond_CB = self._count_CB[seen_C][:, ::-1].cumsum(axis=1)[:, ::-1]
        return self._max_C[seen_C], beyond_CB[:, 1:]

    def totals(self) -> tuple[Array, Array]:
        """(states [C], those beyond each threshold [C, taus]) of the clusters that have any state."""
        count_CB = self._count_CB[self._count_CB.any(axis=1)]
        return count_CB.sum(axis=1), count_CB[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]

    def _grow(self, clusters: int) -> None:
        self._count_CB, self._max_C = grown(self._count_CB, clusters, 0), grown(self._max_C, clusters, -math.inf)


# A variance this small beside the mean square has lost digits in the difference of the two.
_CANCELS = 1e-2


class Covariance:
    """Means and centred products of two quantities, merged as by Chan, Golub and LeVeque (1983)."""

    def __init__(self) -> None:
        self.n = 0
        self._mean = np.zeros(2)
        self._product = np.zeros((2, 2))
        self._first: Array | None = None
        self._varies = np.zeros(2, dtype=bool)

    def add(self, x_N: Array, y_N: Array) -> None:
        if not x_N.size:
            return
        mean = np.array([x_N.mean(), y_N.mean()])
        dx_N, dy_N = x_N - mean[0], y_N - mean[1]
        # Not by BLAS, whose threads wait for each other on a busy machine.
        xx, xy, yy = (float(np.sum(product_N)) for product_N in (dx_N * dx_N, dx_N * dy_N, dy_N * dy_N))
        self._take(x_N.size, mean, np.array([[xx, xy], [xy, yy]]))
        self._see(np.array([x_N[0], y_N[0]]), np.array([x_N.min() < x_N.max(), y_N.min() < y_N.max()]))

    def add_logarithms(self, log_x_N: Array, log_y_N: Array, sums: TokenSums) -> None:
        """As `add`, of exp(log_x_N) and exp(log_y_N), whose sums by segment are known."""
        n = log_x_N.size
        xy = np.array([sums.prob_mu.sum(), sums.prob_pi.sum()])
        squares = np.array([sums.prob_mu_square.sum(), sums.prob_pi_square.sum()])
        centred = squares - xy**2 / n
        if (centred < _CANCELS * squares).any():
            self.add(np.exp(log_x_N), np.exp(log_y_N))
            return
        product = sums.prob_product.sum() - xy[0] * xy[1] / n
        self._take(n, xy / n, np.array([[centred[0], product], [product, centred[1]]]))
        self._see(np.exp([log_x_N[0], log_y_N[0]]), np.ones(2, dtype=bool))

    def merge(self, other: Covariance) -> None:
        if other._first is not None:
            self._take(other.n, other._mean, other._product)
            self._see(other._first, other._varies)

    def _take(self, n: int, mean: Array, product: Array) -> None:
        shift = mean - self._mean
        self._product += product + np.outer(shift, shift) * (self.n * n / (self.n + n))
        self._mean = self._mean + shift * (n / (self.n + n))
        self.n += n

    def _see(self, first: Array, varies: Array) -> None:
        """Of further values of both: the first ones, and whether they vary among themselves."""
        self._first = first if self._first is None else self._first
        self._varies = self._varies | varies | (first != self._first)

    @property
    def constant(self) -> tuple[bool, bool]:
        """Whether x, and whether y, has one value alone."""
        return not self._varies[0], not self._varies[1]

    @property
    def slope(self) -> float:
        """Least-squares slope of y on x."""
        return float(self._product[0, 1] / self._product[0, 0])

    @property
    def correlation(self) -> float:
        """Pearson's; NaN where either is constant."""
        if not self.n or any(self.constant):
            return math.nan
        spread = math.sqrt(self._product[0, 0]) * math.sqrt(self._product[1, 1])
        return float(np.clip(self._product[0, 1] / spread, -1.0, 1.0)) if spread else math.nan


def grown(array: Array, rows: int, fill: float) -> Array:
    """The array with at least `rows` rows, the new ones filled; it doubles, so that growing costs little."""
    if len(array) >= rows:
        return array
    longer = np.full((max(rows, 2 * len(array)), *array.shape[1:]), fill, dtype=array.dtype)
    longer[: len(array)] = array
    return longer
