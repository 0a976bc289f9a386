"""Tokens of each sequence by the bins of a quantity whose edges are the thresholds of rules.

A rule that keeps a band then is a sum over bins, exact to the last token, and any number of thresholds costs one
pass over the tokens. Nearly all tokens are in the bin around zero, so that one is summed by sequence and the others
are scattered.

Shapes: T tokens, F tokens far from zero, S sequences, B bins, G groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from .. import kernel

Array = np.ndarray

_FEW = 0.25  # share of far tokens up to which scattering them alone is faster


class TokenBins:
    """Counts and sums [S, G B] by bin of `key_T`, summed as they are asked for.

    Groups are one after another; `group_T` says which one each token is in, the first one where it is None.
    """

    def __init__(
        self,
        key_T: Array,
        starts_S: Array,
        values: Mapping[str, Array | None],
        group_T: Array | None,
        lows: Iterable[float],
        highs: Iterable[float],
        *,
        groups: int = 1,
    ) -> None:
        """`lows` are thresholds that a key reaches, `highs` such that it does not pass."""
        self._lows, self._highs = frozenset(lows), frozenset(highs)
        # Bin b holds keys in (edge[b - 1], edge[b]].
        edges = np.array(sorted({*self._highs, *(float(np.nextafter(low, -np.inf)) for low in self._lows)}))
        self._edges, self._bins = edges, len(edges) + 1
        self._groups = groups
        self._starts_S, self._length_S = starts_S, np.diff(starts_S, append=len(key_T))
        self._values = {name: values_T for name, values_T in values.items() if values_T is not None}
        self._tables: dict[str, Array] = {}
        self._place_T: Array | None = None
        self._place(key_T, group_T)

    def has(self, lows: Iterable[float], highs: Iterable[float]) -> bool:
        return self._lows.issuperset(lows) and self._highs.issuperset(highs)

    def within(self, low: float = -np.inf, high: float = np.inf, group: int | None = None) -> Array:
        """Which bins hold the keys in [low, high], bool [G B]; of one group alone, or of all."""
        first = 0 if low == -np.inf else int(np.searchsorted(self._edges, np.nextafter(low, -np.inf))) + 1
        last = self._bins - 1 if high == np.inf else int(np.searchsorted(self._edges, high))
        number_B = np.arange(self._bins)
        inside_B = (number_B >= first) & (number_B <= last)
        return np.concatenate([inside_B & (group is None or group == each) for each in range(self._groups)])

    def tokens_S(self, bins_B: Array) -> Array:
        """How many tokens of each sequence are in the bins."""
        return self._table(None)[:, bins_B].sum(axis=1)

    def sum_S(self, name: str, bins_B: Array) -> Array:
        return self._table(name)[:, bins_B].sum(axis=1)

    def known_sum_S(self, name: str, bins_B: Array) -> Array | None:
        return self.sum_S(name, bins_B) if name in self._values or name in self._tables else None

    def collapsed(self) -> TokenBins:
        """The same bins of all sequences as of one, which others can be merged into."""
        copy = object.__new__(TokenBins)
        copy._values = {}
        for name in ("_lows", "_highs", "_edges", "_bins", "_groups"):
            setattr(copy, name, getattr(self, name))
        names: list[str | None] = [None, *self._values] if self._values else [name or None for name in self._tables]
        copy._tables = {name or "": self._table(name).sum(axis=0, keepdims=True) for name in names}
        return copy

    def merge(self, other: TokenBins) -> None:
        """Take in collapsed bins with the same edges; a value that either lacks is lacking."""
        self._tables = {
            name: table + other._tables[name] for name, table in self._tables.items() if name in other._tables
        }

    def _place(self, key_T: Array, group_T: Array | None) -> None:
        """Decide where each token goes: far ones to their bins, the others to the bin of zero of their sequence."""
        self._zero = int(np.searchsorted(self._edges, 0.0))
        library = kernel.library()
        if library is not None:
            self._place_T = np.empty(len(key_T), dtype=np.uint16)
            group_T = None if group_T is None else np.ascontiguousarray(group_T, np.int64)
            library.bin_places(
                *(kernel.address(np.ascontiguousarray(key_T)), None if group_T is None else group_T.ctypes.data),
                *(len(key_T), kernel.address(self._edges), len(self._edges), self._zero),
                kernel.address(self._place_T, np.uint16),
            )
            return
        low = self._edges[self._zero - 1] if self._zero else -np.inf
        high = self._edges[self._zero] if self._zero < len(self._edges) else np.inf
        self._far_F: Array | slice = np.flatnonzero((key_T <= low) | (key_T > high))
        group_S = np.zeros(len(self._starts_S), dtype=np.int64) if group_T is None else group_T[self._starts_S]
        by_sequence = group_T is None or (
            np.array_equal(np.minimum.reduceat(group_T, self._starts_S), group_S)
            and np.array_equal(np.maximum.reduceat(group_T, self._starts_S), group_S)
        )
        self._sparse = by_sequence and len(self._far_F) <= _FEW * len(key_T)
        if not self._sparse:
            self._far_F = slice(None)
        self._home_S = group_S * self._bins + self._zero
        place_F = np.searchsorted(self._edges, key_T[self._far_F])
        if group_T is not None:
            place_F += group_T[self._far_F] * self._bins
        if isinstance(self._far_F, np.ndarray):
            sequence_F = np.searchsorted(self._starts_S, self._far_F, side="right") - 1
        else:
            sequence_F = np.repeat(np.arange(len(self._starts_S)), self._length_S)
        self._place_F = sequence_F * (self._groups * self._bins) + place_F

    def _table(self, name: str | None) -> Array:
        """Sums of a value by sequence and bin; counts for None."""
        key = name or ""
        if key not in self._tables and (twin := self._twin(key)) is not None:
            self._tables[key] = self._tables[twin]  # the same values under another name
        if key not in self._tables:
            values_T = None if name is None else self._values[name]
            shape = (len(self._starts_S), self._groups * self._bins)
            if self._place_T is not None:
                self._tables[key] = self._compiled_table(self._place_T, values_T, shape)
                return self._tables[key]
            values_F = None if values_T is None else values_T[self._far_F]
            table = np.bincount(self._place_F, values_F, minlength=shape[0] * shape[1]).reshape(shape)
            if values_T is not None:
                table = table.astype(np.float64, copy=False)  # of no value the sums are integers
            if self._sparse:
                table[np.arange(shape[0]), self._home_S] += self._near_S(table, values_T)
            self._tables[key] = table
        return self._tables[key]

    def _compiled_table(self, place_T: Array, values_T: Array | None, shape: tuple[int, int]) -> Array:
        table, library = np.zeros(shape), kernel.library()
        assert library is not None
        offsets_S1 = np.append(self._starts_S, len(place_T))
        if values_T is not None:
            values_T = np.ascontiguousarray(values_T, np.float64)
        library.bin_table(
            *(kernel.address(place_T, np.uint16), None if values_T is None else values_T.ctypes.data),
            *(kernel.address(offsets_S1, np.int64), *shape, kernel.address(table)),
        )
        return table if values_T is not None else table.astype(np.int64)

    def _twin(self, name: str) -> str | None:
        mine = self._values.get(name)
        return next((each for each in self._tables if mine is not None and self._values.get(each) is mine), None)

    def _near_S(self, far_SB: Array, values_T: Array | None) -> Array:
        if values_T is None:
            return self._length_S - far_SB.sum(axis=1)
        near_T = values_T.copy()
        near_T[self._far_F] = 0.0
        return np.add.reduceat(near_T, self._starts_S)
