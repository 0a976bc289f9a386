"""Quantiles of a stream: exact as long as the values fit, then to a stated relative error, the same in any order.

Published sketches (t-digest, KLL, REQ) depend on the order in which values arrive; a report must not. So beyond
`EXACT_VALUES` values are counted in bins of equal relative width, as in HdrHistogram and DDSketch (Masson, Rim and
Lee 2019): the bin of a float64 is its exponent and the first bits of its mantissa, which costs a shift. Bins add
up, so merging is exact.

Shape suffixes: N values, B bins, E edges.
"""

from __future__ import annotations

import math

import numpy as np

Array = np.ndarray

EXACT_VALUES = 1_000_000
_MANTISSA_BITS = 11
_SHIFT = 52 - _MANTISSA_BITS
RELATIVE_ERROR = 2.0 ** -(_MANTISSA_BITS + 1)
"""Of every quantile beyond `EXACT_VALUES` values: half the relative width of a bin, 2.4e-4."""


class _Bins:
    """Counts of positive magnitudes by bin, in a window that grows over the bins that occur; infinities apart."""

    def __init__(self) -> None:
        self.first = 0
        self.count_B = np.zeros(0, dtype=np.int64)
        self.infinite = 0

    def add(self, magnitude_N: Array) -> None:
        if magnitude_N.size and magnitude_N.max() == np.inf:
            finite_N = magnitude_N[magnitude_N < np.inf]
            self.infinite += magnitude_N.size - finite_N.size
            magnitude_N = finite_N
        if magnitude_N.size:
            bin_N = magnitude_N.view(np.int64) >> _SHIFT
            lowest = int(bin_N.min())
            self.take(lowest, np.bincount(bin_N - lowest))

    def merge(self, other: _Bins) -> None:
        self.infinite += other.infinite
        self.take(other.first, other.count_B)

    def take(self, first: int, count_B: Array) -> None:
        if not count_B.size:
            return
        if not self.count_B.size:
            self.first = first
        low, high = min(self.first, first), max(self.first + self.count_B.size, first + count_B.size)
        if high - low > self.count_B.size:
            wider = np.zeros(high - low, dtype=np.int64)
            wider[self.first - low : self.first - low + self.count_B.size] = self.count_B
            self.first, self.count_B = low, wider
        self.count_B[first - self.first : first - self.first + count_B.size] += count_B

    def nonempty(self) -> tuple[Array, Array]:
        """(middle of each bin that has a value, rising; how many it has)."""
        index_B = np.flatnonzero(self.count_B)
        with np.errstate(over="ignore"):  # the last bin of float64
            middle_B = ((index_B + self.first) << _SHIFT).view(np.float64) * (1 + RELATIVE_ERROR)
        if not self.infinite:
            return middle_B, self.count_B[index_B]
        return np.append(middle_B, np.inf), np.append(self.count_B[index_B], self.infinite)


class QuantileSketch:
    """The distribution of a quantity, NaN excluded; infinities are values like any other."""

    def __init__(self, exact_values: int = EXACT_VALUES) -> None:
        self.n = 0
        self._exact_values = exact_values
        self._chunks: list[Array] | None = []  # all values, as long as they are few
        self._zeros = 0
        self._positive, self._negative = _Bins(), _Bins()
        self._low, self._high = math.inf, -math.inf

    @property
    def exact(self) -> bool:
        return self._chunks is not None

    def add(self, value_N: Array) -> None:
        """Take in values; the array must not change afterwards."""
        if not value_N.size:
            return
        self.n += value_N.size
        self._low, self._high = min(self._low, float(value_N.min())), max(self._high, float(value_N.max()))
        if self._chunks is None:
            self._count(value_N)
        else:
            self._chunks.append(value_N)
            if self.n > self._exact_values:
                self.coarsen()

    def merge(self, other: QuantileSketch) -> None:
        """Take in what another one has seen."""
        if other._chunks is not None:
            for value_N in other._chunks:
                self.add(value_N)
            return
        self.coarsen()
        self.n += other.n
        self._low, self._high = min(self._low, other._low), max(self._high, other._high)
        self._zeros += other._zeros
        for mine, theirs in ((self._positive, other._positive), (self._negative, other._negative)):
            mine.merge(theirs)

    def coarsen(self) -> None:
        """Give up the values for their bins."""
        chunks, self._chunks = self._chunks or [], None
        for value_N in chunks:
            self._count(value_N)

    def quantiles(self, levels: tuple[float, ...]) -> tuple[float | None, ...]:
        """The ⌈qn⌉-th smallest value for each q, or within `RELATIVE_ERROR`; None as `sample_quantiles` says."""
        if self._chunks is not None:
            return sample_quantiles(self.values(), levels)
        middle_B, count_B = self._sorted_bins()
        cumulated_B = np.cumsum(count_B)
        found = []
        for rank, resolved in (_rank(level, self.n) for level in levels):
            value = float(middle_B[np.searchsorted(cumulated_B, rank, side="right")])
            found.append(min(max(value, self._low), self._high) if resolved else None)
        return tuple(found)

    def negated(self) -> QuantileSketch:
        """That of −x."""
        return self._mapped(np.negative, self._negative, self._positive, -self._high, -self._low)

    def absolute(self) -> QuantileSketch:
        """That of |x|."""
        both = _Bins()
        for bins in (self._positive, self._negative):
            both.merge(bins)
        low = 0.0 if self._low <= 0 <= self._high else min(abs(self._low), abs(self._high))
        return self._mapped(np.abs, both, _Bins(), low, max(abs(self._low), abs(self._high)))

    def histogram(self, edge_E: Array) -> Array:
        """Counts between rising edges, int64 [E − 1]; what lies beyond an end is counted in the bin there."""
        value_B, count_B = (self.values(), None) if self._chunks is not None else self._sorted_bins()
        return np.histogram(np.clip(value_B, edge_E[0], edge_E[-1]), edge_E, weights=count_B)[0].astype(np.int64)

    def values(self) -> Array:
        """Every value, while `exact`."""
        if self._chunks is None:
            raise ValueError("the values have been given up for their bins")
        return np.concatenate(self._chunks) if self._chunks else np.zeros(0)

    def largest_finite_magnitude(self) -> float | None:
        """Of all values, exactly or to the bin; None where none is finite."""
        values = np.abs(self.values() if self._chunks is not None else self._sorted_bins()[0])
        finite = values[np.isfinite(values)]
        return float(finite.max()) if finite.size else None

    def _count(self, value_N: Array) -> None:
        positive_N, negative_N = value_N[value_N > 0], value_N[value_N < 0]
        self._positive.add(positive_N)
        self._negative.add(-negative_N)
        self._zeros += value_N.size - positive_N.size - negative_N.size

    def _sorted_bins(self) -> tuple[Array, Array]:
        (positive_B, positive_count_B), (negative_B, negative_count_B) = (
            bins.nonempty() for bins in (self._positive, self._negative)
        )
        zero = [0.0] if self._zeros else []
        zeros = [self._zeros] if self._zeros else []
        middle_B = np.concatenate([-negative_B[::-1], zero, positive_B])
        return middle_B, np.concatenate([negative_count_B[::-1], zeros, positive_count_B]).astype(np.int64)

    def _mapped(
        self, function: np.ufunc, positive: _Bins, negative: _Bins, low: float, high: float
    ) -> QuantileSketch:
        mapped = QuantileSketch(self._exact_values)
        mapped.n, mapped._low, mapped._high = self.n, low, high
        mapped._chunks = None if self._chunks is None else [function(value_N) for value_N in self._chunks]
        mapped._zeros, mapped._positive, mapped._negative = self._zeros, positive, negative
        return mapped


def sample_quantiles(value_N: Array, levels: tuple[float, ...]) -> tuple[float | None, ...]:
    """Exact sample quantiles, always one of the values: the ⌈qN⌉-th smallest (numpy's `inverted_cdf`).

    None where fewer than 1/(1-q) values make the q-quantile the maximum under another name: p99 needs
    100 values, p999 needs 1000.
    """
    value_N = np.asarray(value_N, dtype=np.float64)
    ranks = [_rank(level, value_N.size) for level in levels]
    wanted = sorted({rank for rank, resolved in ranks if resolved})
    part_N = np.partition(value_N, wanted) if wanted else value_N
    return tuple(float(part_N[rank]) if resolved else None for rank, resolved in ranks)


def _rank(level: float, n: int) -> tuple[int, bool]:
    """(place from 0 of the quantile among n values, whether n resolves it)."""
    # The 1e-9 keeps decimal fractions such as 0.999 on the side of the integer they mean.
    return math.ceil(level * n - 1e-9) - 1, n * (1 - level) >= 1 - 1e-9
