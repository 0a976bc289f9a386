"""A few states out of all: those of the largest TV, and a random sample for pictures; the same whatever their
order.

Shape suffixes: N states of a block of whole sequences, S its sequences, P points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import kernel

Array = np.ndarray

BEFORE, AFTER = 12, 4
"""Tokens around a state whose TV is kept with it."""

POINTS = 600
"""Of a random sample: a scatter of more points is a blot."""


@dataclass(frozen=True)
class State:
    """One state: where it is, what was drawn, and the TV of the states around it by their position."""

    tv: float
    sequence_id: int
    prompt_id: int
    position: int
    token_id: int
    ratio: float
    logp_mu: float
    logp_pi: float
    tv_around: dict[int, float]


class LargestStates:
    """The `count` states of the largest TV above 0, the first of equals by sequence and position."""

    def __init__(self, count: int = 10) -> None:
        self._count = count
        self._states: list[State] = []

    @property
    def least(self) -> float:
        """A state must have more TV than this to get in, or as much at an earlier place."""
        return self._states[-1].tv if len(self._states) == self._count else 0.0

    def candidates(self, tv_N: Array, sequence_id_S: Array, offsets_S1: Array, position_N: Array) -> Array:
        """The states of a block that may be among the largest: their rows, at most `count`."""
        if tv_N.max(initial=0.0) < self.least:
            return np.zeros(0, dtype=np.int64)
        row_M = np.flatnonzero((tv_N >= self.least) & (tv_N > 0))
        if len(row_M) > self._count:
            cut = np.partition(tv_N[row_M], -self._count)[-self._count]
            row_M = row_M[tv_N[row_M] >= cut]  # with all that equal the last one
            sequence_id_M = sequence_id_S[np.searchsorted(offsets_S1, row_M, side="right") - 1]
            order_M = np.lexsort((position_N[row_M], sequence_id_M, -tv_N[row_M]))
            row_M = row_M[order_M[: self._count]]
        return row_M

    def add(self, states: list[State]) -> None:
        ranked = sorted(self._states + states, key=lambda state: (-state.tv, state.sequence_id, state.position))
        self._states = ranked[: self._count]

    def merge(self, other: LargestStates) -> None:
        self.add(other._states)

    def states(self) -> list[State]:
        """Largest first."""
        return list(self._states)


class SampledPoints:
    """At most `POINTS` states chosen at random, always the same ones: those whose place has the smallest hash."""

    def __init__(self) -> None:
        self.n = 0
        self._hash_P = np.zeros(0, dtype=np.uint64)
        self._column_PX = np.zeros((0, 4))  # sequence id, position, x, y: ids below 2⁵³ are exact in float64

    def add(
        self, sequence_id_S: Array, offsets_S1: Array, position_N: Array, logp_mu_N: Array, logp_pi_N: Array
    ) -> None:
        """Take in the states of whole sequences; x and y are the probabilities of their tokens."""
        self.n += len(position_N)
        row_M = self._candidates(sequence_id_S, offsets_S1, position_N)
        sequence_id_M = sequence_id_S[np.searchsorted(offsets_S1, row_M, side="right") - 1]
        position_M = position_N[row_M]
        columns = [sequence_id_M, position_M, np.exp(logp_mu_N[row_M]), np.exp(logp_pi_N[row_M])]
        self._take(_hash(sequence_id_M, position_M), np.column_stack(columns))

    def _candidates(self, sequence_id_S: Array, offsets_S1: Array, position_N: Array) -> Array:
        """The rows of the states that may be among those with the smallest hash."""
        if len(self._hash_P) == POINTS:
            return _rows_below(int(self._hash_P.max()), sequence_id_S, offsets_S1, position_N)
        # A hash is as likely to be anywhere, so that four times as many as are needed lie below this one.
        likely = 4 * POINTS * 2**64 // max(len(position_N), 1)
        row_M = _rows_below(min(likely, 2**64 - 1), sequence_id_S, offsets_S1, position_N)
        return row_M if len(row_M) >= POINTS else np.arange(len(position_N))

    def merge(self, other: SampledPoints) -> None:
        self.n += other.n
        self._take(other._hash_P, other._column_PX)

    def _take(self, hash_P: Array, column_PX: Array) -> None:
        hash_P = np.concatenate([self._hash_P, hash_P])
        column_PX = np.concatenate([self._column_PX, column_PX])
        if len(hash_P) > POINTS:
            chosen = np.argpartition(hash_P, POINTS)[:POINTS]
            hash_P, column_PX = hash_P[chosen], column_PX[chosen]
        self._hash_P, self._column_PX = hash_P, column_PX

    def points(self) -> Array:
        """[P, 4] in order of sequence and position: sequence id, position, x, y."""
        return self._column_PX[np.lexsort((self._column_PX[:, 1], self._column_PX[:, 0]))]


def _rows_below(limit: int, sequence_id_S: Array, offsets_S1: Array, position_N: Array) -> Array:
    """The rows of the states whose place has a hash below a limit."""
    library = kernel.library()
    if library is None:
        hash_N = _hash(np.repeat(sequence_id_S, np.diff(offsets_S1)), position_N)
        return np.flatnonzero(hash_N < np.uint64(limit))
    row_N = np.empty(len(position_N), dtype=np.int64)
    found = library.places_below(
        *(kernel.address(np.ascontiguousarray(sequence_id_S, np.int64), np.int64),),
        *(kernel.address(position_N, np.int64), kernel.address(offsets_S1, np.int64)),
        *(len(sequence_id_S), limit, kernel.address(row_N, np.int64)),
    )
    return row_N[:found]


def _hash(sequence_id_N: Array, position_N: Array) -> Array:
    """The finalizer of SplitMix64 (Steele, Lea and Flood 2014) of (sequence, position), uint64 [N]."""
    key_N = sequence_id_N.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + position_N.astype(np.uint64)
    key_N = (key_N ^ (key_N >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key_N = (key_N ^ (key_N >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key_N ^ (key_N >> np.uint64(31))
