"""Parquet files cut up by their row groups, and read some million values at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..parquet_files import check_expansion, open_parquet
from .source import Part

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

PART_BYTES = 32 * 2**20
BATCH_VALUES = 2**20


def parts_of(path: Path, columns: Collection[str]) -> list[Part]:
    """Consecutive row groups that take some megabytes together. `columns` are those that will be read.

    Raises `ValueError` for a file that decodes to far more than its size, and what pyarrow raises for a broken one.
    """
    file = open_parquet(path)
    check_expansion(path, file, present(file.schema_arrow.names, columns))
    parts: list[Part] = []
    start = size = 0
    for group in range(file.num_row_groups):
        size += file.metadata.row_group(group).total_byte_size
        if size >= PART_BYTES or group == file.num_row_groups - 1:
            parts.append(Part(path, start, group + 1))
            start, size = group + 1, 0
    return parts


def batches_of(part: Part, columns: Collection[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Those of the columns that are there, in batches, each with the number of its first row in the file."""
    file = open_parquet(part.path)
    groups = list(range(part.start, file.num_row_groups if part.stop is None else part.stop))
    row = sum(file.metadata.row_group(group).num_rows for group in range(part.start))
    for batch in file.iter_batches(
        _rows_at_once(file, groups), row_groups=groups, columns=present(file.schema_arrow.names, columns)
    ):
        yield row, batch
        row += batch.num_rows


def present(names: Collection[str], columns: Collection[str]) -> list[str]:
    """Those columns that are among the names of a table; `ValueError` where one is there twice."""
    count = Counter(names)
    found = [name for name in columns if name in count]
    if twice := [name for name in found if count[name] > 1]:
        raise ValueError(f"it has {count[twice[0]]} columns {twice[0]}")
    return found


def _rows_at_once(file: pq.ParquetFile, groups: list[int]) -> int:
    facts = [file.metadata.row_group(group) for group in groups]
    rows = sum(group.num_rows for group in facts)
    values = max(
        (sum(group.column(index).num_values for group in facts) for index in range(file.metadata.num_columns)),
        default=0,
    )
    return max(1, rows * BATCH_VALUES // max(1, values))
