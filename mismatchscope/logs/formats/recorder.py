"""Parquet files of the very form of `columns`, which `ms.Recorder` writes: handed through without conversion."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ...parquet_files import open_parquet
from .. import row_groups
from ..columns import COLUMNS, LOGPROBS
from ..row_types import in_our_types, is_nearly_ours
from ..source import ColumnOrigin, LogBatch, LogFormat, Part

PARQUET_MAGIC = b"PAR1"


def recognises(path: Path, head: bytes) -> bool:
    """Whether a Parquet file has log-probs under our names, and nothing under them of another kind: that is any
    table's. Raises what pyarrow raises for a broken one."""
    if not head.startswith(PARQUET_MAGIC):
        return False
    schema = open_parquet(path).schema_arrow
    has_two = len(set(LOGPROBS.values()).intersection(schema.names)) > 1
    return has_two and all(is_nearly_ours(field.name, field.type) for field in schema if field.name in COLUMNS)


def parts_of(path: Path) -> list[Part]:
    return row_groups.parts_of(path, COLUMNS)


def read(part: Part) -> Iterator[LogBatch]:
    """The rows of some row groups."""
    for _, batch in row_groups.batches_of(part, COLUMNS):
        yield LogBatch(in_our_types(batch), part)


FORMAT = LogFormat(
    name="recorder",
    looks_for="Parquet files with the columns behavior_logprobs and reference_logprobs, as ms.Recorder writes them",
    recognises=recognises,
    parts=parts_of,
    read=read,
    columns=tuple(ColumnOrigin(name, name, role) for role, name in LOGPROBS.items()),
)
