"""A log's sums by everything that a comparison has to hold fixed at once: what is said of lags and of workers is
said of tokens alike in the rest.

Shapes: U units (segments), E rows, one a cell and prompt; F columns of sums.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..measures.binned_sums import IMPURITY, TOKENS, TV
from ..measures.label_sums import cluster_hash
from .block import UNKNOWN

Array = np.ndarray

KEYS = ("step", "worker", "rank", "environment", "lag", "position", "length", "prompt")
"""What a row is of. A position is that of a wide band, a length ⌊log₂⌋ of a response's tokens."""
CELL_TOKENS, CELL_TV, CELL_IMPURITY = range(3)
SUMMED = [TOKENS, TV, IMPURITY]
"""The columns of segments that are added up."""

MAX_ROWS = 2**17
_PENDING = 2**15


class CellSums:
    """Of a log with more than `max_rows` rows, prompts of a step are left out at random: every second one, then
    three of four, by a hash, so that any split and order of a log leaves out the same."""

    def __init__(self, max_rows: int = MAX_ROWS) -> None:
        self._max_rows, self._halvings = max_rows, 0
        self._key_UK, self._sum_UF = np.zeros((0, len(KEYS)), dtype=np.int64), np.zeros((0, len(SUMMED)))
        self._pending: list[tuple[Array, Array]] = []

    def add(self, keys: Mapping[str, Array | None], sum_UF: Array) -> None:
        """Units with their keys [U], None where the log has no such label, and the sums of `SUMMED`."""
        key_UK = np.full((len(sum_UF), len(KEYS)), UNKNOWN)
        for column, name in enumerate(KEYS):
            if (key_U := keys[name]) is not None:
                key_UK[:, column] = key_U
        self._take(key_UK, sum_UF)

    def merge(self, other: CellSums) -> None:
        other._compact()
        self._halvings = max(self._halvings, other._halvings)
        self._take(other._key_UK, other._sum_UF)

    def rows(self) -> tuple[dict[str, Array], Array]:
        """The keys of every row, by name [E], and its sums [E, F]."""
        self._compact()
        return dict(zip(KEYS, self._key_UK.T, strict=True)), self._sum_UF

    def __getstate__(self) -> dict[str, object]:
        self._compact()
        return self.__dict__.copy()

    def _take(self, key_UK: Array, sum_UF: Array) -> None:
        self._pending.append((key_UK, sum_UF))
        if sum(len(sums) for _, sums in self._pending) > max(_PENDING, len(self._sum_UF)):
            self._compact()

    def _compact(self) -> None:
        if not self._pending:
            return
        key_UK = np.concatenate([self._key_UK, *(keys for keys, _ in self._pending)])
        sum_UF = np.concatenate([self._sum_UF, *(sums for _, sums in self._pending)])
        self._pending = []
        cell_U = _hash(key_UK)
        order_U = np.argsort(cell_U, kind="stable")
        start_E = np.flatnonzero(np.append(True, np.diff(cell_U[order_U]) != 0)) if len(cell_U) else order_U
        self._key_UK = key_UK[order_U][start_E]
        self._sum_UF = np.add.reduceat(sum_UF[order_U], start_E, axis=0) if len(start_E) else sum_UF
        self._thin()

    def _thin(self) -> None:
        drawn_E = _hash(self._key_UK[:, [KEYS.index("step"), KEYS.index("prompt")]])
        while True:
            kept_E = drawn_E & np.int64(2**self._halvings - 1) == 0
            if kept_E.sum() <= self._max_rows:
                break
            self._halvings += 1
        if not kept_E.all():
            self._key_UK, self._sum_UF = self._key_UK[kept_E], self._sum_UF[kept_E]


def _hash(key_UK: Array) -> Array:
    hash_U = np.zeros(len(key_UK), dtype=np.int64)
    for key_U in key_UK.T:
        hash_U = cluster_hash(hash_U * 3 + key_U)
    return hash_U


def levels(key_E: Array) -> Array:
    """The numbers of a key's values, from 0 on [E]."""
    number_E: Array = np.unique(key_E, return_inverse=True)[1].ravel()
    return number_E
