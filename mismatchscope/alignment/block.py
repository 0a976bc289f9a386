"""Some whole sequences of two traces, side by side; their distributions are read when they are asked for.

Shapes: S sequences of a block, N rows of it (response tokens), M rows with a full distribution, K observed ids, V
vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from ..measures.full import EXACT
from .observed_ids import ObservedPair, observed_pair

if TYPE_CHECKING:
    import pyarrow as pa

    from .alignment import Alignment

PIECE_BYTES = 64 * 1024 * 1024
_COPIES = 4  # of a top-k list while it is read, matched and padded


@dataclass(frozen=True, eq=False)
class Block:
    """Some whole sequences of both traces: `length_S` rows each, in order. None of them is empty.

    `cluster_S` is the label of a sequence's prompt, see `prompt_clusters`; `whole_S` says that no row that
    counts was rejected.
    """

    sequence_id_S: np.ndarray
    prompt_id_S: np.ndarray
    cluster_S: np.ndarray
    whole_S: np.ndarray
    length_S: np.ndarray
    position_N: np.ndarray
    token_id_N: np.ndarray
    logp_mu_N: np.ndarray
    logp_pi_N: np.ndarray
    _rows: tuple[np.ndarray, np.ndarray]  # in the tokens.parquet of either trace
    _batches: tuple[pa.RecordBatch, pa.RecordBatch]
    _alignment: Alignment
    _same_ids: bool = False  # both sides list the same ids at every row

    @property
    def sequence_id_N(self) -> np.ndarray:
        return np.repeat(self.sequence_id_S, self.length_S)

    @property
    def behavior_row_N(self) -> np.ndarray:
        """Where each row is in the behaviour's tokens.parquet."""
        return self._rows[0]

    def topk_pieces(self, max_bytes: int = PIECE_BYTES) -> Iterator[tuple[slice, ObservedPair]]:
        """Both policies at the ids that top-k evidence shows, some rows at a time; nothing without it."""
        alignment = self._alignment
        if not alignment.topk:
            return
        fitting = max(1, max_bytes // (_COPIES * 2 * 8 * (alignment.behavior.evidence.k + 1)))
        (mu, pi), full = self._batches, alignment.full
        for start, stop in pairwise([*range(0, len(self.token_id_N), fitting), len(self.token_id_N)]):
            whole, rows = None, stop - start
            if full is not None and full.mu is None:
                whole = full.of_reference(self._rows[1][start:stop])
            k = alignment.behavior.evidence.k
            yield (
                slice(start, stop),
                observed_pair(mu.slice(start, rows), pi.slice(start, rows), whole, k=k, same_ids=self._same_ids),
            )

    def exact(self) -> dict[str, np.ndarray]:
        """The figures `EXACT` of every row, where π was seen beside μ; else none."""
        if not self._alignment.beside:
            return {}
        return {name: self._batches[1][name].to_numpy() for name in EXACT}

    def full_pieces(self, max_bytes: int = PIECE_BYTES) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(rows [M], log μ [M, V], log π [M, V]) of the whole distributions, float32, some at a time.

        They may be views of the files: let go of a piece before the next.
        """
        if self._alignment.full is not None:
            yield from self._alignment.full.pieces(*self._rows, max_bytes)
