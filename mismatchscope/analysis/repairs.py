"""What is changed in a log because it was asked for: nothing is repaired unasked, and the report says what was.

Shapes: S rows, R their tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from ..errors import UsageError
from ..foreign_text import printable
from ..logs.columns import BY_TOKEN, LOGPROBS
from ..logs.source import LogBatch
from ..reports.text import count
from .rows import FILE_BITS

if TYPE_CHECKING:
    import pyarrow as pa

RECORDED: Final = "recorded"
ALL: Final = "all"
SCORED: Final = "scored"
_MASKS: Final = tuple(name for name in BY_TOKEN if name not in ("mask", *LOGPROBS.values()))
_FARTHEST: Final = 16


@dataclass(frozen=True)
class Repairs:
    """`shift`: the trainer's log-probs of token t are read at t + shift. `mask`: "recorded" as the log has it;
    "all" counts masked tokens too that have log-probs of both policies; "scored" leaves those of the others out
    that have a log-prob of exactly 0; a column's name counts the tokens where it is not 0. `dropped`: ids of
    responses that came before.

    Raises `UsageError` for a shift beyond 16 tokens, and for a mask that is none of these.
    """

    shift: int = 0
    mask: str = RECORDED
    dropped: np.ndarray | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if abs(self.shift) > _FARTHEST:
            raise UsageError(
                f"A shift by {self.shift} tokens is no convention of a trainer.", hint="--shift 1, or --shift -1"
            )
        if self.mask not in (RECORDED, ALL, SCORED, *_MASKS):
            raise UsageError(
                f"'{printable(self.mask)}' is no mask of a log.",
                hint=f"--mask {RECORDED}, --mask {ALL}, --mask {SCORED}, or a column by token: {', '.join(_MASKS)}",
            )

    @property
    def sentences(self) -> tuple[str, ...]:
        """What was changed, for the report."""
        said = []
        if self.shift:
            there = f"t {'+' if self.shift > 0 else '−'} {abs(self.shift)}"
            said.append(
                f"The trainer's log-probs were moved: token t has those that the log has for {there}, because "
                f"--shift {self.shift} was given. Tokens without such a partner are masked."
            )
        if self.mask == ALL:
            said.append(
                "Every token counts that has log-probs of both policies other than 0, masked ones too, because "
                "--mask all was given."
            )
        elif self.mask == SCORED:
            said.append(
                "Tokens with a log-prob of exactly 0 on either side were left out, because --mask scored was "
                "given: with those that nobody scored go those that a policy is certain of."
            )
        elif self.mask != RECORDED:
            said.append(
                f"The tokens count where {self.mask} is not 0, in place of the log's mask, because "
                f"--mask {self.mask} was given."
            )
        if self.dropped is not None:
            said.append(
                f"{count(len(self.dropped), 'response')} that came before with the same tokens and log-probs "
                f"{'was' if len(self.dropped) == 1 else 'were'} left out, because --drop-duplicates was given. "
                "Those that could be drawn twice, short or certain ones, stay."
            )
        return tuple(said)

    def applied(self, batch: LogBatch, file: int = 0) -> LogBatch:
        """A batch of the file of this number with these changes.

        Raises `UsageError` where it lacks the column that is the mask.
        """
        rows = batch.rows
        if not {LOGPROBS["behavior"], LOGPROBS["reference"]} <= set(rows.schema.names):
            return batch  # which leaves it out, and says so
        if self.dropped is not None and len(self.dropped) and rows.num_rows:
            rows = _without(rows, self.dropped, file)
        if self.mask != RECORDED and rows.num_rows:
            rows = _with_mask(rows, _mask(rows, self.mask))
        if self.shift and rows.num_rows:
            rows = _shifted(rows, self.shift)
        return batch if rows is batch.rows else replace(batch, rows=rows)


UNREPAIRED: Final = Repairs()


def _without(rows: pa.RecordBatch, dropped: np.ndarray, file: int) -> pa.RecordBatch:
    import pyarrow as pa

    own_S = rows.column("sequence_id").to_numpy(zero_copy_only=False).astype(np.int64)
    stays_S = ~np.isin((np.int64(file) << np.int64(FILE_BITS)) + own_S, dropped)
    return rows if stays_S.all() else rows.filter(pa.array(stays_S))


def _lengths(column: pa.Array[Any]) -> np.ndarray:
    """The length of each list; that of a null is 0."""
    return column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)  # type: ignore[attr-defined]


def _values(rows: pa.RecordBatch, name: str, length_S: np.ndarray, missing: float) -> np.ndarray:
    """A column by token as float64 [R], `missing` where it is null or has another length."""
    flat_R = np.full(int(length_S.sum()), missing)
    if name not in rows.schema.names:
        return flat_R
    column = rows.column(name)
    own_S = _lengths(column)
    values = _flat(column)
    fits_S = own_S == length_S
    flat_R[np.repeat(fits_S, length_S)] = np.nan_to_num(values[np.repeat(fits_S, own_S)], nan=missing)
    return flat_R


def _flat(column: pa.Array[Any]) -> np.ndarray:
    import pyarrow as pa

    values = cast("pa.ListArray[Any]", column).flatten()
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    return values.cast(pa.float64()).to_numpy(zero_copy_only=False)


def _mask(rows: pa.RecordBatch, mask: str) -> np.ndarray:
    """Which tokens count, bool [R]."""
    if mask not in (ALL, SCORED):
        return _not_zero(rows, mask)
    length_S = _lengths(rows.column(LOGPROBS["behavior"]))
    kept_R = _values(rows, "mask", length_S, 1.0) > 0
    mu_R, pi_R = (_values(rows, LOGPROBS[role], length_S, np.nan) for role in ("behavior", "reference"))
    no_zero_R = (mu_R != 0) & (pi_R != 0)
    return kept_R | (no_zero_R & np.isfinite(mu_R) & np.isfinite(pi_R)) if mask == ALL else kept_R & no_zero_R


def _not_zero(rows: pa.RecordBatch, name: str) -> np.ndarray:
    if name not in rows.schema.names:
        there = ", ".join(column for column in rows.schema.names if column in _MASKS)
        raise UsageError(
            f"The log has no column '{name}' to be its mask.", hint=f"by token it has {there or 'none'}"
        )
    length_S = _lengths(rows.column(LOGPROBS["behavior"]))
    return _values(rows, name, length_S, 0.0) != 0


def _with_mask(rows: pa.RecordBatch, mask_R: np.ndarray) -> pa.RecordBatch:
    import pyarrow as pa

    length_S = _lengths(rows.column(LOGPROBS["behavior"]))
    offsets = pa.array(np.append(0, np.cumsum(length_S)), pa.int32())
    return _with_column(rows, "mask", pa.ListArray.from_arrays(offsets, pa.array(mask_R)))


def _with_column(rows: pa.RecordBatch, name: str, column: pa.Array[Any]) -> pa.RecordBatch:
    import pyarrow as pa

    columns = dict(zip(rows.schema.names, rows.columns, strict=True)) | {name: column}
    return pa.RecordBatch.from_pydict(columns)


def _shifted(rows: pa.RecordBatch, shift: int) -> pa.RecordBatch:
    import pyarrow as pa

    length_S = _lengths(rows.column(LOGPROBS["behavior"]))
    mask_R = _values(rows, "mask", length_S, 1.0) > 0
    for role in ("reference", "target"):
        name = LOGPROBS[role]
        if name not in rows.schema.names:
            continue
        column = rows.column(name)
        own_S = _lengths(column)
        sequence_R = np.repeat(np.arange(len(own_S)), own_S)
        start_S = np.cumsum(own_S) - own_S
        from_R = np.arange(len(sequence_R)) - start_S[sequence_R] + shift
        there_R = (from_R >= 0) & (from_R < own_S[sequence_R])
        at_R = np.where(there_R, np.arange(len(sequence_R)) + shift, 0)
        value_R = np.where(there_R, _flat(column)[at_R] if len(at_R) else 0.0, np.nan)
        if np.array_equal(own_S, length_S):
            mask_R = mask_R & there_R
        moved = pa.ListArray.from_arrays(
            pa.array(np.append(0, np.cumsum(own_S)), pa.int32()),
            pa.array(value_R, pa.float64()),
            mask=column.is_null(),
        )
        rows = _with_column(rows, name, moved)
    return _with_mask(rows, mask_R)
