"""Only those row groups of a table that may hold some sequences."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .table_checks import checked

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_BATCH_ROWS = 16384


def batches_of(
    path: Path, file: pq.ParquetFile, sequence_ids: Collection[int], columns: list[str]
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """(number of its first row, batch) of the row groups whose range of ids holds one of these."""
    at = file.schema_arrow.get_field_index("sequence_id")
    first = 0
    for group in range(file.num_row_groups):
        facts = file.metadata.row_group(group)
        ids = facts.column(at).statistics
        low, high = (None, None) if ids is None else (ids.min, ids.max)
        if low is None or high is None or any(low <= sequence_id <= high for sequence_id in sequence_ids):
            row = first
            batches = file.iter_batches(batch_size=_BATCH_ROWS, row_groups=[group], columns=columns)
            for batch in checked(path, batches, first):
                yield row, batch
                row += batch.num_rows
        first += facts.num_rows
