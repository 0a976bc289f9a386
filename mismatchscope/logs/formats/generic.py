"""Any table of log-probs, with a column map that says what its columns are; without one they have our names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ..column_map import ColumnMap, our_own_names
from ..columns import LOGPROBS
from ..mapped_rows import mapped_rows
from ..row_types import no_rows
from ..source import ColumnOrigin, LogBatch, LogFormat, Part
from ..tables import SUFFIXES, batches_of, column_names, parts_of
from ..token_rows import responses_of


def format_of(columns: ColumnMap) -> LogFormat:
    """The format of tables that a map describes."""
    origins = {role: columns.columns[name] for role, name in LOGPROBS.items() if name in columns.columns}
    named = " and ".join(mapped.column for mapped in origins.values())
    return LogFormat(
        name="generic",
        looks_for=f"tables ({', '.join(SUFFIXES)}) with the columns {named}",
        recognises=partial(_recognises, columns),
        parts=partial(_parts, columns),
        read=partial(_read, columns),
        grows=columns.rows == "responses",
        columns=tuple(ColumnOrigin(LOGPROBS[role], mapped.column, role) for role, mapped in origins.items()),
    )


def _recognises(columns: ColumnMap, path: Path, head: bytes) -> bool:
    wanted = {columns.columns[name].column for name in LOGPROBS.values() if name in columns.columns}
    return len(wanted & column_names(path, head)) > 1


def _parts(columns: ColumnMap, path: Path) -> list[Part]:
    return parts_of(path, columns.names(), whole=columns.rows == "tokens")


def _read(columns: ColumnMap, part: Part) -> Iterator[LogBatch]:
    rejected: Counter[str] = Counter()
    remarks: list[str] = []
    batches = batches_of(part, columns.names(), rejected, remarks)
    if columns.rows == "tokens":
        batches = responses_of(batches, columns)
    for number_S, batch in batches:
        rows = mapped_rows(batch, number_S, columns, rejected)
        yield LogBatch(rows, part, Counter(rejected), tuple(remarks))
        rejected.clear()
        remarks.clear()
    if rejected or remarks:
        yield LogBatch(no_rows(), part, rejected, tuple(remarks))


FORMAT = format_of(our_own_names())
