"""Parquet files of the very form of `columns`, which `ms.Recorder` writes: handed through without conversion."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ...parquet_files import check_expansion, open_parquet
from ..columns import COLUMNS, LOGPROBS
from ..row_types import in_our_types
from ..source import ColumnOrigin, LogBatch, LogFormat, Part

if TYPE_CHECKING:
    import pyarrow.parquet as pq

PARQUET_MAGIC = b"PAR1"
_PART_BYTES = 32 * 2**20
_BATCH_TOKENS = 2**20


def recognises(path: Path, head: bytes) -> bool:
    """Whether a Parquet file has log-probs under our names. Raises what pyarrow raises for a broken one."""
    if not head.startswith(PARQUET_MAGIC):
        return False
    names = open_parquet(path).schema_arrow.names
    return len(set(LOGPROBS.values()).intersection(names)) > 1


def parts_of(path: Path) -> list[Part]:
    """Consecutive row groups that take some megabytes together."""
    file = open_parquet(path)
    check_expansion(path, file, _columns(file))
    parts: list[Part] = []
    start = size = 0
    for group in range(file.num_row_groups):
        size += file.metadata.row_group(group).total_byte_size
        if size >= _PART_BYTES or group == file.num_row_groups - 1:
            parts.append(Part(path, start, group + 1))
            start, size = group + 1, 0
    return parts


def read(part: Part) -> Iterator[LogBatch]:
    """The rows of some row groups, about a million tokens at a time."""
    file = open_parquet(part.path)
    groups = list(range(part.start, file.num_row_groups if part.stop is None else part.stop))
    rows = _rows_at_once(file, groups)
    for batch in file.iter_batches(batch_size=rows, row_groups=groups, columns=_columns(file)):
        yield LogBatch(in_our_types(batch), part)


def _columns(file: pq.ParquetFile) -> list[str]:
    names = file.schema_arrow.names
    return [name for name in COLUMNS if name in names]


def _rows_at_once(file: pq.ParquetFile, groups: list[int]) -> int:
    facts = [file.metadata.row_group(group) for group in groups]
    rows = sum(group.num_rows for group in facts)
    values = max(
        (sum(group.column(index).num_values for group in facts) for index in range(file.metadata.num_columns)),
        default=0,
    )
    return max(1, rows * _BATCH_TOKENS // max(1, values))


FORMAT = LogFormat(
    name="recorder",
    looks_for="Parquet files with the columns behavior_logprobs and reference_logprobs, as ms.Recorder writes them",
    recognises=recognises,
    parts=parts_of,
    read=read,
    columns=tuple(ColumnOrigin(name, name, role) for role, name in LOGPROBS.items()),
)
