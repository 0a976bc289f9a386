"""TV along the response: what position it has, as sums that merge.

Shape suffixes: N tokens of a block of whole sequences, T positions, G groups of positions, E edges.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from .accumulators import grown
from .sketches import EXACT_VALUES, QuantileSketch, sample_quantiles

Array = np.ndarray

BINS = 24
_GROUPS = 32
_MANTISSA_BITS = 6  # 0.8 %: finer than a picture shows


class PositionSums:
    """Sum of TV at each position over all sequences, and how many sequences there are."""

    def __init__(self) -> None:
        self._sum_T = np.zeros(0)
        self.sequences = 0

    def add(self, tv_N: Array, position_N: Array, sequences: int) -> None:
        """`tv_N` holds each token's state TV, or (1 - rho)_+, which estimates it without bias."""
        self._take(np.bincount(position_N, weights=tv_N), sequences)

    def merge(self, other: PositionSums) -> None:
        self._take(other._sum_T, other.sequences)

    def _take(self, sum_T: Array, sequences: int) -> None:
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
    """Mean, p99 and maximum of a quantity by position, in at most `BINS` bins (`_GROUPS` beyond the exact values).

    Means and maxima are kept for each position. For the quantile all values are kept as long as they are few; then
    one sketch for each group of 2^k positions, with k as small as gives `_GROUPS` groups or fewer.
    """

    def __init__(self, exact_values: int = EXACT_VALUES) -> None:
        self._n_T, self._sum_T, self._max_T = np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros(0)
        self._last = -1
        self._exact_values = exact_values
        self._chunks: list[tuple[Array, Array]] | None = []
        self._sketches: list[QuantileSketch] = []
        self._width = 1

    def add(self, position_N: Array, value_N: Array) -> None:
        """Take in values and their positions; the arrays must not change afterwards."""
        n_T = np.bincount(position_N)
        max_T = np.full(len(n_T), -np.inf)
        np.maximum.at(max_T, position_N, value_N)
        self._take(n_T, np.bincount(position_N, weights=value_N), max_T)
        if self._chunks is None:
            self._sketch(position_N, value_N)
            return
        self._chunks.append((position_N, value_N))
        if int(self._n_T.sum()) > self._exact_values:
            self._coarsen()

    def merge(self, other: PositionProfile) -> None:
        self._take(other._n_T[: other._last + 1], other._sum_T[: other._last + 1], other._max_T[: other._last + 1])
        if other._chunks is None:
            self._coarsen()
            self._widen(max(self._width, other._width))
            for group, sketch in enumerate(other._sketches):
                self._group(group * other._width // self._width).merge(sketch)
            return
        for position_N, value_N in other._chunks:
            if self._chunks is None:
                self._sketch(position_N, value_N)
            else:
                self._chunks.append((position_N, value_N))
        if self._chunks is not None and int(self._n_T.sum()) > self._exact_values:
            self._coarsen()

    def bins(self) -> list[PositionBin]:
        """The bins that have a value, of about equal width."""
        count = self._last + 1
        if self._chunks is None:
            edge_E = np.append(np.arange(0, count, self._width), count)
        else:
            edge_E = np.unique(np.linspace(0, count, min(BINS, count) + 1).astype(int))
            position_N, value_N = (np.concatenate(column) for column in zip(*self._chunks, strict=True))
        found = []
        for low, high in pairwise(edge_E.tolist()):
            n, mean = self.within(low, high)
            if not n:
                continue
            if self._chunks is None:
                p99 = self._sketches[low // self._width].quantiles((0.99,))[0]
            else:
                p99 = sample_quantiles(value_N[(position_N >= low) & (position_N < high)], (0.99,))[0]
            found.append(PositionBin(low, high - 1, n, mean, p99, float(self._max_T[low:high].max())))
        return found

    def within(self, low: int, high: int) -> tuple[int, float]:
        """(how many values the positions low … high − 1 have, their mean; NaN where none)."""
        n = int(self._n_T[low:high].sum())
        return n, float(self._sum_T[low:high].sum()) / n if n else np.nan

    def _take(self, n_T: Array, sum_T: Array, max_T: Array) -> None:
        length = len(n_T)
        self._last = max(self._last, length - 1)
        self._n_T, self._sum_T = grown(self._n_T, length, 0), grown(self._sum_T, length, 0.0)
        self._max_T = grown(self._max_T, length, -np.inf)
        self._n_T[:length] += n_T
        self._sum_T[:length] += sum_T
        self._max_T[:length] = np.maximum(self._max_T[:length], max_T)

    def _coarsen(self) -> None:
        chunks, self._chunks = self._chunks or [], None
        for position_N, value_N in chunks:
            self._sketch(position_N, value_N)

    def _sketch(self, position_N: Array, value_N: Array) -> None:
        self._widen(self._width)
        group_N = position_N // self._width
        order_N = np.argsort(group_N, kind="stable")
        groups, first = np.unique(group_N[order_N], return_index=True)
        for group, values in zip(groups.tolist(), np.split(value_N[order_N], first[1:]), strict=True):
            self._group(group).add(values)

    def _widen(self, width: int) -> None:
        """Let groups be as wide as the positions seen so far ask for."""
        while width * _GROUPS <= self._last:
            width *= 2
        if width > self._width:
            sketches, factor, self._sketches = self._sketches, width // self._width, []
            self._width = width
            for group, sketch in enumerate(sketches):
                self._group(group // factor).merge(sketch)

    def _group(self, group: int) -> QuantileSketch:
        while len(self._sketches) <= group:
            self._sketches.append(QuantileSketch(exact_values=0, mantissa_bits=_MANTISSA_BITS))
        return self._sketches[group]
