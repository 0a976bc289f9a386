"""Rows of a log, put together one by one and handed out as Arrow: how an importer of lists makes its batches."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..measures.prompt_hash import labels_of_tokens
from . import jsonl
from .columns import BY_ROW, BY_TOKEN, COLUMNS, column_type
from .row_types import list_column, no_rows
from .source import LogBatch, Part

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_TOKENS = 2**18
"""So many tokens of responses go into one batch."""


class RowBuilder:
    """Collects responses until there are enough for a batch."""

    def __init__(self) -> None:
        self.tokens = 0
        self._rows: list[dict[str, Any]] = []
        self._prompts: list[np.ndarray | None] = []

    def add(self, values: dict[str, Any], prompt: np.ndarray | None = None) -> None:
        """One response: `values` by column of `columns`, arrays for those by token; None where one is unknown. The
        tokens of its prompt, where they are known, are also what tells prompts apart.

        Raises `ValueError` where arrays of tokens are not equally long.
        """
        lengths = {len(values[name]) for name in BY_TOKEN if values.get(name) is not None}
        if len(lengths) > 1:
            raise ValueError("lists of other lengths")
        self._rows.append(values)
        self._prompts.append(prompt)
        self.tokens += max(lengths, default=0)

    @property
    def is_full(self) -> bool:
        return self.tokens >= BATCH_TOKENS

    def take(self) -> pa.RecordBatch:
        """The rows since the last call."""
        import pyarrow as pa

        rows, prompts = self._rows, self._prompts
        if not rows:
            return no_rows()
        self._rows, self._prompts, self.tokens = [], [], 0
        found: dict[str, list[Any]] = defaultdict(lambda: [None] * len(rows))
        for index, row in enumerate(rows):
            for name, value in row.items():
                if value is not None:
                    found[name][index] = value
        if any(prompt is not None for prompt in prompts):
            found["prompt_token_ids"] = prompts
            found["prompt"] = _labels(prompts)
        columns = {
            name: pa.array(values, column_type(name)) if name in BY_ROW else list_array(values)
            for name, values in found.items()
        }
        names = [name for name in COLUMNS if name in columns]
        return pa.RecordBatch.from_arrays([columns[name] for name in names], names=names)


AddRow = Callable[[RowBuilder, dict[str, Any], int], None]
"""Adds the responses of a JSON object, whose line begins at that byte; `ValueError` says why it cannot."""


def batches_of_lines(part: Part, add: AddRow) -> Iterator[LogBatch]:
    """The responses in a range of JSON lines; those that `add` refuses are counted by its reason."""
    rejected: Counter[str] = Counter()
    remarks: list[str] = []
    builder = RowBuilder()
    for place, row in jsonl.rows_of(part, rejected, remarks):
        try:
            add(builder, row, place)
        except ValueError as error:
            rejected[str(error)] += 1
        del row  # as `rows_of` does with it
        if builder.is_full:
            yield LogBatch(builder.take(), part)
    yield LogBatch(builder.take(), part, rejected, tuple(remarks))


def _labels(prompts: list[np.ndarray | None]) -> list[int | None]:
    known = [prompt for prompt in prompts if prompt is not None]
    labels = iter(labels_of_tokens(np.concatenate(known), np.array([len(prompt) for prompt in known])).tolist())
    return [None if prompt is None else next(labels) for prompt in prompts]


def list_array(arrays: list[np.ndarray | None]) -> pa.Array:
    """Arrays end to end as a column of lists; None is null."""
    length_S = np.array([0 if array is None else len(array) for array in arrays])
    there_S = np.array([array is not None for array in arrays])
    return list_column(np.concatenate([array for array in arrays if array is not None]), length_S, there_S)
