"""Small batches of consecutive files put together: a log of ten thousand files costs what its rows cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from ..logs.source import LogBatch
from .rows import FILE_BITS

if TYPE_CHECKING:
    import pyarrow as pa

SMALL_BYTES = 2 * 2**20
"""Batches below are put together until they have as much."""


def joined(batches: Iterable[tuple[int, LogBatch]]) -> Iterator[tuple[int, LogBatch]]:
    """The same rows, in order, each batch with the number of its file. What is of several files has the number 0,
    and ids in which the number of each row's file is already."""
    waiting: list[tuple[int, LogBatch]] = []
    size = 0
    for file, batch in batches:
        own = batch.rows.nbytes
        if waiting and (own >= SMALL_BYTES or size >= SMALL_BYTES or not _alike(waiting[0][1], batch)):
            yield _together(waiting)
            waiting, size = [], 0
        waiting.append((file, batch))
        size += own
    if waiting:
        yield _together(waiting)


def _alike(one: LogBatch, other: LogBatch) -> bool:
    """Whether rows of both can be in one table, and have ids that stay apart."""
    schema = one.rows.schema
    return "sequence_id" in schema.names and schema.equals(other.rows.schema, check_metadata=False)


def _together(batches: list[tuple[int, LogBatch]]) -> tuple[int, LogBatch]:
    import pyarrow as pa

    if len(batches) == 1:
        return batches[0]
    rejected: Counter[str] = Counter()
    for _, batch in batches:
        rejected.update(batch.rejected)
    table = pa.Table.from_batches([_with_ids_of_the_log(batch.rows, file) for file, batch in batches])
    rows = table.combine_chunks().to_batches()[0] if table.num_rows else batches[0][1].rows
    remarks = tuple(dict.fromkeys(remark for _, batch in batches for remark in batch.remarks))
    return 0, LogBatch(rows, batches[0][1].part, rejected, remarks)


def _with_ids_of_the_log(rows: pa.RecordBatch, file: int) -> pa.RecordBatch:
    import pyarrow as pa

    rows = rows.replace_schema_metadata(None)
    own = rows.column("sequence_id")
    ids = pa.array(own.fill_null(0).to_numpy() + (np.int64(file) << np.int64(FILE_BITS)), mask=_missing(own))
    return rows.set_column(rows.schema.get_field_index("sequence_id"), "sequence_id", ids)


def _missing(column: pa.Array) -> np.ndarray | None:
    return np.asarray(column.is_null()) if column.null_count else None
