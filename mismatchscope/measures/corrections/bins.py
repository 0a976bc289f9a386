"""Tokens of each sequence by the bins of a quantity whose edges are the thresholds of rules.

A rule that keeps a band then is a sum over bins, exact to the last token, and any number of thresholds costs one
pass over the tokens.

Shapes: S sequences, B bins, G groups, U bins that hold a token.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np

Array = np.ndarray

Key = Literal["ratio", "target", "change", "outward_kl"]
"""By what tokens are binned: d; log pi_theta - log pi_old; the change of the probability from mu; the KL of "this
token or another" where its change goes where the advantage pushes, else 0."""
KEYS: tuple[Key, ...] = get_args(Key)


@dataclass(frozen=True)
class Edges:
    """`lows` are thresholds that a key reaches, `highs` such that it does not pass."""

    lows: frozenset[float]
    highs: frozenset[float]
    groups: int
    """Of tokens, one after another in the order of the bins: all; or zero, positive and negative advantages."""

    @cached_property
    def edge_E(self) -> Array:
        """Rising; bin b holds keys in (edge[b - 1], edge[b]]."""
        return np.array(sorted({*self.highs, *(float(np.nextafter(low, -np.inf)) for low in self.lows)}))

    @property
    def zero(self) -> int:
        """The bin of 0."""
        return int(np.searchsorted(self.edge_E, 0.0))

    @property
    def all_bins(self) -> int:
        return self.groups * (len(self.edge_E) + 1)

    def has(self, lows: Iterable[float], highs: Iterable[float]) -> bool:
        return self.lows.issuperset(lows) and self.highs.issuperset(highs)

    def within(self, low: float, high: float, group: int | None) -> Array:
        """Which bins hold the keys in [low, high], bool [G B]; of one group alone, or of all."""
        bins = len(self.edge_E) + 1
        first = 0 if low == -np.inf else int(np.searchsorted(self.edge_E, np.nextafter(low, -np.inf))) + 1
        last = bins - 1 if high == np.inf else int(np.searchsorted(self.edge_E, high))
        inside_B = (np.arange(bins) >= first) & (np.arange(bins) <= last)
        return np.concatenate([inside_B & (group is None or group == each) for each in range(self.groups)])


class TokenBins:
    """Counts and sums of values of the tokens of each sequence, by bin."""

    def __init__(self, edges: Edges, used_U: Array, sums: dict[str, Array]) -> None:
        """`sums` are [U, S] by the name of the value, "tokens" of 1; the bins at `used_U`, rising, hold a token."""
        self._edges, self._used_U, self._sums = edges, used_U, sums

    @classmethod
    def of_table(cls, edges: Edges, place: Mapping[str, int], table_SBV: Array) -> TokenBins:
        """From sums of V values, of which each name has a `place`, the first that of "tokens"."""
        used_U = np.flatnonzero(table_SBV[:, :, 0].any(axis=0))
        sums_VUS = np.ascontiguousarray(table_SBV[:, used_U].T)
        return cls(edges, used_U, {name: sums_VUS[v] for name, v in place.items()})

    @classmethod
    def joined(cls, parts: Sequence[TokenBins]) -> TokenBins:
        """Those of the sequences of several blocks; a value that one of them lacks is lacking."""
        used_U = np.unique(np.concatenate([part._used_U for part in parts]))
        names = [name for name in parts[0]._sums if all(name in part._sums for part in parts)]
        sums = {name: np.concatenate([part._at(name, used_U) for part in parts], axis=1) for name in names}
        return cls(parts[0]._edges, used_U, sums)

    def has(self, lows: Iterable[float], highs: Iterable[float]) -> bool:
        return self._edges.has(lows, highs)

    def within(self, low: float = -np.inf, high: float = np.inf, group: int | None = None) -> Array:
        """Which bins hold the keys in [low, high], bool [G B]; of one group alone, or of all."""
        return self._edges.within(low, high, group)

    def tokens_S(self, bins_B: Array) -> Array:
        """How many tokens of each sequence are in the bins."""
        return self.sum_S("tokens", bins_B).astype(np.int64)

    def sum_S(self, name: str, bins_B: Array) -> Array:
        return self._sums[name][bins_B[self._used_U]].sum(axis=0)

    def known_sum_S(self, name: str, bins_B: Array) -> Array | None:
        return self.sum_S(name, bins_B) if name in self._sums else None

    def collapsed(self) -> TokenBins:
        """The same bins of all sequences as of one, which others can be merged into."""
        sums = {name: sum_US.sum(axis=1, keepdims=True) for name, sum_US in self._sums.items()}
        return TokenBins(self._edges, self._used_U, sums)

    def merge(self, other: TokenBins) -> None:
        """Take in collapsed bins with the same edges; a value that either lacks is lacking."""
        used_U = np.union1d(self._used_U, other._used_U)
        names = [name for name in self._sums if name in other._sums]
        self._sums = {name: self._at(name, used_U) + other._at(name, used_U) for name in names}
        self._used_U = used_U

    def _at(self, name: str, used_U: Array) -> Array:
        """Sums in these bins, which are mine and others."""
        sum_US = self._sums[name]
        spread_US = np.zeros((len(used_U), sum_US.shape[1]))
        spread_US[np.searchsorted(used_U, self._used_U)] = sum_US
        return spread_US
