"""Which rows a comparison counts: those that the loss masks of its traces keep. Masks that differ are refused.

Shapes: S sequences of a block, F all their rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..errors import MisalignedError, NotComparableError
from ..traces.reader import Trace
from ..traces.schema import MASK
from .cursors import Responses, SequenceCursor, TokenCursor

if TYPE_CHECKING:
    import pyarrow as pa

_SEQUENCES_AT_ONCE = 256


class LossMasks:
    """The masks of two traces and, where given, of the trace whose mask holds for the whole comparison.

    A trace without the column says nothing: the masks of the others hold for it.
    """

    def __init__(self, behavior: Trace, reference: Trace, common: Trace | None) -> None:
        self._sides = [
            ("behaviour", MASK in behavior.token_columns),
            ("reference", MASK in reference.token_columns),
        ]
        elsewhere = common is not None and common.path not in (behavior.path, reference.path)
        self._common = _MaskCursor(common) if elsewhere and common is not None else None
        self.rows = self.different = 0
        self._first = ""

    def counted(
        self, responses: Responses, batches: tuple[pa.RecordBatch, pa.RecordBatch], position_F: np.ndarray
    ) -> np.ndarray:
        """Boolean [F]: which rows of these sequences count. `batches` are their rows on the two sides."""
        masks = [
            (name, _values(batch)) for (name, has_mask), batch in zip(self._sides, batches, strict=True) if has_mask
        ]
        if self._common is not None:
            masks.append(("comparison", self._common.of(responses)))
        self.rows += responses.rows
        if not masks:
            return np.ones(responses.rows, dtype=bool)
        first_name, counted_F = masks[0]
        for name, other_F in masks[1:]:
            differs_F = counted_F != other_F
            if not differs_F.any():
                continue
            if not self.different:
                at = int(differs_F.argmax())
                sequence_id = np.repeat(responses.sequence_id_S, responses.length_S)[at]
                yes, no = (first_name, name) if counted_F[at] else (name, first_name)
                self._first = (
                    f"position {position_F[at]} of sequence {sequence_id} counts under the mask of the {yes}, not "
                    f"under that of the {no}"
                )
            self.different += int(differs_F.sum())
        return counted_F

    def check(self) -> None:
        """Raise `NotComparableError` where two masks differ: the first row that does, and how many."""
        if self.different:
            raise NotComparableError(
                f"The loss masks differ: {self._first}. Rows that differ: {self.different} of {self.rows}.",
                hint="give both sides the same mask, or one side alone: then it holds for both",
            )


class _MaskCursor:
    """The mask of a trace along the sequences of two others, in order."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._sequences = SequenceCursor(trace, _SEQUENCES_AT_ONCE)
        self._tokens = TokenCursor(trace, [MASK])

    def of(self, responses: Responses) -> np.ndarray:
        """Boolean [F]; true for sequences that this trace has not."""
        counted_F = np.ones(responses.rows, dtype=bool)
        if not len(responses.sequence_id_S):
            return counted_F
        theirs = self._sequences.until(int(responses.sequence_id_S[-1]))
        mask_F = _values(self._tokens.take(theirs.rows))
        shared_S = np.isin(theirs.sequence_id_S, responses.sequence_id_S, assume_unique=True)
        known_S = np.isin(responses.sequence_id_S, theirs.sequence_id_S, assume_unique=True)
        if not np.array_equal(theirs.length_S[shared_S], responses.length_S[known_S]):
            raise MisalignedError(
                f"The loss mask of {self._trace.path} is of responses of another length.",
                hint="all traces of a comparison hold the same tokens",
            )
        counted_F[np.repeat(known_S, responses.length_S)] = mask_F[np.repeat(shared_S, theirs.length_S)]
        return counted_F


def _values(batch: pa.RecordBatch) -> np.ndarray:
    return batch[MASK].to_numpy(zero_copy_only=False).astype(bool, copy=False)
