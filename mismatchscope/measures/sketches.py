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

from .value_counts import ValueRange, add_bins

Array = np.ndarray

EXACT_VALUES = 1_000_000
MANTISSA_BITS = 11
_FLOAT64_MANTISSA = 52
RELATIVE_ERROR = 2.0 ** -(MANTISSA_BITS + 1)
"""Of every quantile beyond `EXACT_VALUES` values: half the relative width of a bin, 2.4e-4."""


_SPARE_OCTAVES = 8
"""At both ends of a window, as further values come nearer to zero, and go farther from it."""


class _Bins:
    """Counts of finite, nonzero values by sign and bin, in a window that grows over the bins that occur."""

    def __init__(self, mantissa_bits: int) -> None:
        self._shift = _FLOAT64_MANTISSA - mantissa_bits
        self._half_width = 2.0 ** -(mantissa_bits + 1)
        self._room = _SPARE_OCTAVES << mantissa_bits
        self._first = 0
        self._count_B2 = np.zeros((0, 2), dtype=np.int64)  # positive, negative

    def add(self, value_N: Array) -> ValueRange:
        """Take in values; where they lie. Once the window holds nearly all that occurs, it takes one pass."""
        found = add_bins(value_N, self._shift, self._first, self._count_B2)
        if found.outside:
            first, end = self._first, self._first + len(self._count_B2)
            low = max((found.least_bits >> self._shift) - self._room, 0)
            self._widen(low, (found.most_bits >> self._shift) + self._room - low)
            if end > first:
                bin_N = np.abs(value_N).view(np.int64) >> self._shift
                value_N = value_N[(bin_N < first) | (bin_N >= end)]
            add_bins(value_N, self._shift, self._first, self._count_B2)
        return found

    def merge(self, other: _Bins) -> None:
        first, length = other._first, len(other._count_B2)
        if length:
            self._widen(first, length)
            self._count_B2[first - self._first : first - self._first + length] += other._count_B2

    def flipped(self, *, fold: bool) -> _Bins:
        """Those of −x, or with `fold` those of |x|."""
        flipped = _Bins(_FLOAT64_MANTISSA - self._shift)
        flipped._first, flipped._count_B2 = self._first, self._count_B2[:, ::-1]
        if fold:
            total_B = self._count_B2.sum(axis=1)
            flipped._count_B2 = np.column_stack([total_B, np.zeros_like(total_B)])
        return flipped

    def nonempty(self) -> list[Array]:
        """Of the negative, then the positive values: the middle of each bin that has one, rising; its count."""
        found: list[Array] = []
        for side, sign, order in ((1, -1.0, -1), (0, 1.0, 1)):
            index_B = np.flatnonzero(self._count_B2[:, side])[::order]
            with np.errstate(over="ignore"):  # the last bin of float64
                magnitude_B = ((index_B + self._first) << self._shift).view(np.float64) * (1 + self._half_width)
            found += [sign * magnitude_B, self._count_B2[index_B, side]]
        return found

    def _widen(self, first: int, length: int) -> None:
        """Let the window hold these bins, too."""
        if not len(self._count_B2):
            self._first = first
        end = max(self._first + len(self._count_B2), first + length)
        start = min(self._first, first)
        if end - start > len(self._count_B2):
            wider = np.zeros((end - start, 2), dtype=np.int64)
            wider[self._first - start : self._first - start + len(self._count_B2)] = self._count_B2
            self._first, self._count_B2 = start, wider


class QuantileSketch:
    """The distribution of a quantity, NaN excluded; infinities are values like any other."""

    def __init__(self, exact_values: int = EXACT_VALUES, mantissa_bits: int = MANTISSA_BITS) -> None:
        """Beyond `exact_values` values the relative error is 2^-(`mantissa_bits` + 1)."""
        self.n = 0
        self._exact_values, self._mantissa_bits = exact_values, mantissa_bits
        self._chunks: list[Array] | None = []  # all values, as long as they are few
        self._special = {-math.inf: 0, 0.0: 0, math.inf: 0}  # how many values have no bin
        self._bins = _Bins(mantissa_bits)
        self._low, self._high = math.inf, -math.inf

    @property
    def exact(self) -> bool:
        return self._chunks is not None

    @property
    def zeros(self) -> int:
        """How many of the values are 0."""
        chunks = self._chunks or []
        return self._special[0.0] + sum(chunk.size - int(np.count_nonzero(chunk)) for chunk in chunks)

    def add(self, value_N: Array) -> None:
        """Take in values; the array must not change afterwards."""
        if not value_N.size:
            return
        value_N = np.ascontiguousarray(value_N, dtype=np.float64)
        self.n += value_N.size
        if self._chunks is None:
            self._count(value_N)
            return
        self._low, self._high = min(self._low, float(value_N.min())), max(self._high, float(value_N.max()))
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
        self._special = {value: n + other._special[value] for value, n in self._special.items()}
        self._bins.merge(other._bins)

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
        for rank, resolved in (rank_of(level, self.n) for level in levels):
            value = float(middle_B[np.searchsorted(cumulated_B, rank, side="right")])
            found.append(min(max(value, self._low), self._high) if resolved else None)
        return tuple(found)

    def negated(self) -> QuantileSketch:
        """That of −x."""
        special = {-value + 0.0: n for value, n in self._special.items()}
        return self._mapped(np.negative, self._bins.flipped(fold=False), special, (-self._high, -self._low))

    def absolute(self) -> QuantileSketch:
        """That of |x|."""
        special = self._special | {-math.inf: 0, math.inf: self._special[math.inf] + self._special[-math.inf]}
        ends = abs(self._low), abs(self._high)
        low = 0.0 if self._low <= 0 <= self._high else min(ends)
        return self._mapped(np.abs, self._bins.flipped(fold=True), special, (low, max(ends)))

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
        found = self._bins.add(value_N)
        self._low, self._high = min(self._low, found.smallest), max(self._high, found.largest)
        for value, n in ((-math.inf, found.minus_infinite), (0.0, found.zeros), (math.inf, found.infinite)):
            self._special[value] += n

    def _sorted_bins(self) -> tuple[Array, Array]:
        """(value that stands for each bin, rising; how many values it has)."""
        negative_B, negative_count_B, positive_B, positive_count_B = self._bins.nonempty()
        least, zero, most = ([value] if n else [] for value, n in self._special.items())
        n_least, n_zero, n_most = ([n] if n else [] for n in self._special.values())
        count_B = np.concatenate([n_least, negative_count_B, n_zero, positive_count_B, n_most])
        return np.concatenate([least, negative_B, zero, positive_B, most]), count_B.astype(np.int64)

    def _mapped(
        self, function: np.ufunc, bins: _Bins, special: dict[float, int], extremes: tuple[float, float]
    ) -> QuantileSketch:
        mapped = QuantileSketch(self._exact_values, self._mantissa_bits)
        mapped.n, mapped._bins, (mapped._low, mapped._high) = self.n, bins, extremes
        mapped._special = {value: special[value] for value in mapped._special}
        mapped._chunks = None if self._chunks is None else [function(value_N) for value_N in self._chunks]
        return mapped


def sample_quantiles(value_N: Array, levels: tuple[float, ...]) -> tuple[float | None, ...]:
    """Exact sample quantiles, always one of the values: the ⌈qN⌉-th smallest (numpy's `inverted_cdf`).

    None where fewer than 1/(1-q) values make the q-quantile the maximum under another name: p99 needs
    100 values, p999 needs 1000.
    """
    value_N = np.asarray(value_N, dtype=np.float64)
    ranks = [rank_of(level, value_N.size) for level in levels]
    wanted = sorted({rank for rank, resolved in ranks if resolved})
    part_N = np.partition(value_N, wanted) if wanted else value_N
    return tuple(float(part_N[rank]) if resolved else None for rank, resolved in ranks)


def rank_of(level: float, n: int) -> tuple[int, bool]:
    """(place from 0 of the quantile among n values, whether n resolves it)."""
    # The 1e-9 keeps decimal fractions such as 0.999 on the side of the integer they mean.
    return math.ceil(level * n - 1e-9) - 1, n * (1 - level) >= 1 - 1e-9
