"""Ids for the rows of a log that has none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .source import LogBatch, Part

_PART_BITS = 24  # rows of a part: 16 million


def numbered(batches: Iterator[LogBatch], part: Part) -> Iterator[LogBatch]:
    """The batches of a part, those whose rows are not numbered with ids that are unique in the file."""
    seen = 0
    for batch in batches:
        yield batch if _has_ids(batch) else _with_ids(batch, (part.start << _PART_BITS) + seen)
        seen += batch.rows.num_rows


def _has_ids(batch: LogBatch) -> bool:
    rows = batch.rows
    return "sequence_id" in rows.schema.names and not rows.column("sequence_id").null_count


def _with_ids(batch: LogBatch, first: int) -> LogBatch:
    import pyarrow as pa

    rows = batch.rows
    columns = {name: rows.column(name) for name in rows.schema.names if name != "sequence_id"}
    columns["sequence_id"] = pa.array(range(first, first + rows.num_rows), pa.int64())
    return replace(batch, rows=pa.RecordBatch.from_pydict(columns))
