"""Reading a trace from front to back, as much at a time as is asked for: whole sequences, and the rows of their
tokens.

Shapes: S sequences, P all their prompt tokens end to end, F all their response tokens end to end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ..errors import TraceError
from ..traces.columns import flat
from ..traces.reader import BATCH_ROWS, Trace
from ..traces.schema import SEQUENCES, TOKENS
from .read_ahead import read_ahead

if TYPE_CHECKING:
    import pyarrow as pa

ROW = ["sequence_id", "position", "token_id", "logprob"]
"""The columns of tokens.parquet that every comparison reads."""
_COLUMNS = ["sequence_id", "prompt_id", "prompt_token_ids", "response_token_ids"]


@dataclass(frozen=True, eq=False)
class Responses:
    """Some sequences that follow each other in a trace; `length_S` and `prompt_length_S` count their tokens."""

    sequence_id_S: np.ndarray
    prompt_id_S: np.ndarray
    prompt_P: np.ndarray
    prompt_length_S: np.ndarray
    response_F: np.ndarray
    length_S: np.ndarray

    @classmethod
    def of(cls, table: pa.Table) -> Responses:
        sequence_id_S, prompt_id_S = (table[name].to_numpy() for name in _COLUMNS[:2])
        prompt_P, prompt_length_S = flat(table["prompt_token_ids"].combine_chunks())
        response_F, length_S = flat(table["response_token_ids"].combine_chunks())
        return cls(sequence_id_S, prompt_id_S, prompt_P, prompt_length_S, response_F, length_S)

    @property
    def rows(self) -> int:
        """Of tokens.parquet."""
        return len(self.response_F)

    @cached_property
    def start_S(self) -> np.ndarray:
        """Where the tokens of each sequence begin."""
        return np.cumsum(self.length_S) - self.length_S

    def only(self, chosen_S: np.ndarray) -> Responses:
        """The sequences at which the boolean [S] is true."""
        if chosen_S.all():
            return self
        return Responses(
            self.sequence_id_S[chosen_S],
            self.prompt_id_S[chosen_S],
            self.prompt_P[np.repeat(chosen_S, self.prompt_length_S)],
            self.prompt_length_S[chosen_S],
            self.response_F[np.repeat(chosen_S, self.length_S)],
            self.length_S[chosen_S],
        )

    def tokens(self, at: int) -> tuple[np.ndarray, np.ndarray]:
        """Prompt and response of one sequence."""
        prompt_start = int(self.prompt_length_S[:at].sum())
        prompt = self.prompt_P[prompt_start : prompt_start + self.prompt_length_S[at]]
        return prompt, self.response_F[self.start_S[at] : self.start_S[at] + self.length_S[at]]

    def same_tokens(self, other: Responses, *, prompts: bool = True) -> bool:
        """Whether two sets of as many sequences have the same responses throughout, and the same `prompts`."""
        columns = ["length_S", "response_F", *(("prompt_length_S", "prompt_P") if prompts else ())]
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in columns)


class SequenceCursor:
    """The sequences of a trace in order. Raises `TraceError` when their ids do not rise."""

    def __init__(self, trace: Trace, rows: int) -> None:
        """`rows` sequences are read at a time."""
        self._path = trace.path
        self._batches = read_ahead(trace.iter_sequences(_COLUMNS, rows), 1)
        self._ahead: pa.RecordBatch | None = None
        self._last_id = -1
        self.rows_read = 0
        """Of tokens.parquet, as far as the sequences handed out promise."""

    def next(self) -> Responses | None:
        """Those of the next batch; None at the end."""
        batch = self._next_batch()
        return None if batch is None else self._responses([batch])

    def until(self, sequence_id: int) -> Responses:
        """All that are left up to and including this id: possibly none."""

        batches: list[pa.RecordBatch] = []
        while (batch := self._next_batch()) is not None:
            upto = int(np.searchsorted(batch["sequence_id"].to_numpy(), sequence_id, side="right"))
            batches.append(batch.slice(0, upto))
            if upto < batch.num_rows:
                self._ahead = batch.slice(upto)
                break
        return self._responses(batches)

    def _next_batch(self) -> pa.RecordBatch | None:
        if self._ahead is not None:
            batch, self._ahead = self._ahead, None
            return batch
        try:
            batch = next(self._batches)
        except StopIteration:
            return None
        if batch.num_rows:
            id_S = batch["sequence_id"].to_numpy()
            if id_S[0] <= self._last_id or (np.diff(id_S) <= 0).any():
                raise TraceError(f"{self._path / SEQUENCES}: the rows are not in rising order of sequence_id.")
            self._last_id = int(id_S[-1])
        return batch

    def _responses(self, batches: list[pa.RecordBatch]) -> Responses:
        import pyarrow as pa

        if not batches:
            nothing = np.zeros(0, dtype=np.int64)
            return Responses(*[nothing] * 6)
        responses = Responses.of(pa.Table.from_batches(batches))
        self.rows_read += responses.rows
        return responses


class TokenCursor:
    """The rows of tokens.parquet in order, some columns of them."""

    def __init__(self, trace: Trace, columns: list[str]) -> None:
        self._trace, self._columns = trace, columns
        # Lists of ids and log-probs take hundreds of bytes a row.
        rows, depth = (BATCH_ROWS, 1) if "topk_ids" in columns else (8 * BATCH_ROWS, 2)
        self._batches: Iterator[pa.RecordBatch] = read_ahead(trace.iter_tokens(columns, rows), depth)
        self._ahead: pa.RecordBatch | None = None
        self.row = 0
        """The number of the next row."""

    def take(self, rows: int) -> pa.RecordBatch:
        """The next rows. Raises `TraceError` when there are fewer."""
        import pyarrow as pa

        parts: list[pa.RecordBatch] = []
        while rows:
            batch = self._ahead if self._ahead is not None else next(self._batches, None)
            if batch is None:
                raise TraceError(f"{self._trace.path / TOKENS} ends before the responses of {SEQUENCES} do.")
            parts.append(batch.slice(0, rows))
            self._ahead = batch.slice(rows) if rows < batch.num_rows else None
            rows -= parts[-1].num_rows
            self.row += parts[-1].num_rows
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return pa.RecordBatch.from_pylist([], schema=self._trace.token_schema(self._columns))
        return pa.Table.from_batches(parts).combine_chunks().to_batches()[0]


def check_rows(trace: Trace, batch: pa.RecordBatch, expected: tuple[np.ndarray, ...]) -> None:
    """Raise `TraceError` where columns of tokens.parquet are not what sequences.parquet says: `ROW`, in order."""
    for name, expected_F in zip(ROW, expected, strict=False):
        found_F = batch[name].to_numpy()
        if not np.array_equal(found_F, expected_F):
            at = int(np.argmax(found_F != expected_F))
            raise TraceError(
                f"{trace.path}: {TOKENS} and {SEQUENCES} disagree at position {expected[1][at]} of sequence "
                f"{expected[0][at]}: {name} is {found_F[at]} and {expected_F[at]}.",
                hint="write the trace again",
            )
