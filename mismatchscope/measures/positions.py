"""TV along the response: what position it has, as sums that merge.

Shape suffixes: N tokens of a block of whole sequences, T positions, G groups of positions, E edges,
B bins of values.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from . import kernel
from .accumulators import grown
from .sketches import EXACT_VALUES, rank_of, sample_quantiles
from .value_counts import value_range

Array = np.ndarray

BINS = 24
_GROUPS = 32
_MANTISSA_BITS = 6  # 0.8 %: finer than a picture shows
_SHIFT = 52 - _MANTISSA_BITS


class PositionSums:
    """Sum of TV at each position over all sequences, and how many sequences there are."""

    def __init__(self) -> None:
        self._sum_T = np.zeros(0)
        self.sequences = 0

    def add(self, tv_N: Array, position_N: Array, sequences: int) -> None:
        """`tv_N` holds each token's state TV, or (1 - rho)_+, which estimates it without bias."""
        self.add_sums(np.bincount(position_N, weights=tv_N), sequences)

    def merge(self, other: PositionSums) -> None:
        self.add_sums(other._sum_T, other.sequences)

    def add_sums(self, sum_T: Array, sequences: int) -> None:
        """As `add`, where the sums over the sequences at each position are known."""
        self._sum_T = grown(self._sum_T, len(sum_T), 0.0)
        self._sum_T[: len(sum_T)] += sum_T
        self.sequences += sequences

    def mean(self, horizon: int) -> Array:
        """Mean over sequences at each position, [horizon]; a sequence that has ended counts as zero."""
        return grown(self._sum_T, horizon, 0.0)[:horizon] / self.sequences


class PositionBin(NamedTuple):
    """The states at positions low … high (inclusive)."""

    low: int
    high: int
    n: int
    mean: float
    p99: float | None
    max: float


class PositionProfile:
    """Mean, p99 and maximum by position of a quantity that is finite and never negative, in at most `BINS` bins
    (`_GROUPS` beyond the exact values).

    Means and maxima are kept for each position. For the quantile all values are kept as long as they are few; then
    their counts by bins of equal relative width (see `sketches`), for each group of 2^k positions, with k as small
    as gives `_GROUPS` groups or fewer.
    """

    def __init__(self, exact_values: int = EXACT_VALUES) -> None:
        self._n_T, self._sum_T, self._max_T = np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros(0)
        self._last = -1
        self._exact_values = exact_values
        self._chunks: list[tuple[Array, Array]] | None = []
        self._first = self._log2_width = 0
        self._count_GB = np.zeros((_GROUPS, 0), dtype=np.int64)
        self._zeros_G = np.zeros(_GROUPS, dtype=np.int64)

    def add(self, position_N: Array, value_N: Array) -> None:
        """Take in values and their positions; the arrays must not change afterwards."""
        self._sum(position_N, value_N)
        if self._chunks is None:
            self._count(position_N, value_N)
            return
        self._chunks.append((position_N, value_N))
        if int(self._n_T.sum()) > self._exact_values:
            self._coarsen()

    def merge(self, other: PositionProfile) -> None:
        length = other._last + 1
        self._grow(length)
        self._n_T[:length] += other._n_T[:length]
        self._sum_T[:length] += other._sum_T[:length]
        self._max_T[:length] = np.maximum(self._max_T[:length], other._max_T[:length])
        if other._chunks is None:
            self._coarsen()
            self._join(max(self._log2_width, other._log2_width))
            bins = other._count_GB.shape[1]
            if bins:
                self._widen(other._first, bins)
            group_G = np.arange(_GROUPS) >> (self._log2_width - other._log2_width)
            start = other._first - self._first
            np.add.at(self._count_GB[:, start : start + bins], group_G, other._count_GB)
            np.add.at(self._zeros_G, group_G, other._zeros_G)
            return
        for position_N, value_N in other._chunks:
            if self._chunks is None:
                self._count(position_N, value_N)
            else:
                self._chunks.append((position_N, value_N))
        if self._chunks is not None and int(self._n_T.sum()) > self._exact_values:
            self._coarsen()

    def bins(self) -> list[PositionBin]:
        """The bins that have a value, of about equal width."""
        count = self._last + 1
        if self._chunks is None:
            edge_E = np.append(np.arange(0, count, 1 << self._log2_width), count)
        else:
            edge_E = np.unique(np.linspace(0, count, min(BINS, count) + 1).astype(int))
            position_N, value_N = (np.concatenate(column) for column in zip(*self._chunks, strict=True))
        found = []
        for low, high in pairwise(edge_E.tolist()):
            n, mean = self.within(low, high)
            if not n:
                continue
            largest = float(self._max_T[low:high].max())
            if self._chunks is None:
                p99 = self._p99(low >> self._log2_width, n, largest)
            else:
                p99 = sample_quantiles(value_N[(position_N >= low) & (position_N < high)], (0.99,))[0]
            found.append(PositionBin(low, high - 1, n, mean, p99, largest))
        return found

    def within(self, low: int, high: int) -> tuple[int, float]:
        """(how many values the positions low … high − 1 have, their mean; NaN where none)."""
        n = int(self._n_T[low:high].sum())
        return n, float(self._sum_T[low:high].sum()) / n if n else np.nan

    def _p99(self, group: int, n: int, largest: float) -> float | None:
        """The middle of the bin that holds it."""
        rank, resolved = rank_of(0.99, n)
        if not resolved:
            return None
        below = rank - int(self._zeros_G[group])
        if below < 0:
            return 0.0
        at = int(np.searchsorted(np.cumsum(self._count_GB[group]), below, side="right"))
        start = np.int64((at + self._first) << _SHIFT).view(np.float64)
        return min(float(start) * (1 + 2.0 ** -(_MANTISSA_BITS + 1)), largest)

    def _grow(self, length: int) -> None:
        """Let there be room for so many positions, one of which has a value at the end."""
        self._last = max(self._last, length - 1)
        self._n_T, self._sum_T = grown(self._n_T, length, 0), grown(self._sum_T, length, 0.0)
        self._max_T = grown(self._max_T, length, -np.inf)

    def _sum(self, position_N: Array, value_N: Array) -> None:
        self._grow(int(position_N.max()) + 1)
        library = kernel.library()
        if library is None:
            n_T = np.bincount(position_N)
            self._n_T[: len(n_T)] += n_T
            self._sum_T[: len(n_T)] += np.bincount(position_N, weights=value_N)
            np.maximum.at(self._max_T, position_N, value_N)
            return
        library.position_sums(
            *(kernel.address(value_N), kernel.address(position_N, np.int64), len(value_N)),
            *(kernel.address(self._n_T, np.int64), kernel.address(self._sum_T), kernel.address(self._max_T)),
        )

    def _coarsen(self) -> None:
        chunks, self._chunks = self._chunks or [], None
        for position_N, value_N in chunks:
            self._count(position_N, value_N)

    def _count(self, position_N: Array, value_N: Array) -> None:
        log2_width = self._log2_width
        while _GROUPS << log2_width <= self._last:
            log2_width += 1
        self._join(log2_width)
        found = value_range(value_N)
        if found.most_bits >= 0:
            first = found.least_bits >> _SHIFT
            self._widen(first, (found.most_bits >> _SHIFT) - first + 1)
        library, bins = kernel.library(), self._count_GB.shape[1]
        if library is None:
            group_N, zero_N = position_N >> log2_width, value_N == 0
            self._zeros_G += np.bincount(group_N[zero_N], minlength=_GROUPS)
            place_N = group_N * bins + (value_N.view(np.int64) >> _SHIFT) - self._first
            self._count_GB += np.bincount(place_N[~zero_N], minlength=_GROUPS * bins).reshape(_GROUPS, bins)
            return
        library.position_bin_counts(
            *(kernel.address(value_N), kernel.address(position_N, np.int64), len(value_N), log2_width, _SHIFT),
            *(self._first, bins, kernel.address(self._count_GB, np.int64), kernel.address(self._zeros_G, np.int64)),
        )

    def _join(self, log2_width: int) -> None:
        """Let groups be so wide."""
        if log2_width > self._log2_width:
            group_G = np.arange(_GROUPS) >> (log2_width - self._log2_width)
            self._log2_width = log2_width
            for name in ("_count_GB", "_zeros_G"):
                counted = getattr(self, name)
                joined = np.zeros_like(counted)
                np.add.at(joined, group_G, counted)
                setattr(self, name, joined)

    def _widen(self, first: int, length: int) -> None:
        """Let the window hold these bins, too."""
        bins = self._count_GB.shape[1]
        if not bins:
            self._first = first
        start, end = min(self._first, first), max(self._first + bins, first + length)
        if end - start > bins:
            wider = np.zeros((_GROUPS, end - start), dtype=np.int64)
            wider[:, self._first - start : self._first - start + bins] = self._count_GB
            self._first, self._count_GB = start, wider
