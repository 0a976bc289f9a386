"""Any table of log-probs, with a column map that says what its columns are; without one they have our names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..column_map import ColumnMap, our_own_names
from ..columns import LOGPROBS
from ..mapped_rows import mapped_rows
from ..row_types import no_rows
from ..source import ColumnOrigin, LogBatch, LogFormat, Part
from ..tables import SUFFIXES, batches_of, column_names, parts_of
from ..token_rows import responses_of

if TYPE_CHECKING:
    import pyarrow as pa


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
        also_reads=frozenset({"recorder"}) if columns == our_own_names() else frozenset(),
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
    prompts = [columns.columns["prompt"].column] if "prompt" in columns.columns else []  # of any number of digits
    of_tokens = columns.rows == "tokens"
    batches = batches_of(part, columns.names(), rejected, remarks, texts=prompts, in_order=of_tokens)
    if of_tokens:
        batches = responses_of(batches, columns)
    has_rows = False
    for number_S, batch in batches:
        for rows in _mapped(batch, number_S, columns, rejected, has_rows):
            has_rows = True
            yield LogBatch(rows, part, Counter(rejected), tuple(remarks))
            rejected.clear()
            remarks.clear()
    if rejected or remarks:
        yield LogBatch(no_rows(), part, rejected, tuple(remarks))


def _mapped(
    batch: pa.RecordBatch, number_S: np.ndarray, columns: ColumnMap, rejected: Counter[str], has_rows: bool
) -> Iterator[pa.RecordBatch]:
    """The responses of a batch; where some of its rows can be none, as with a text that is no list, of the rest.

    Raises `ValueError` where neither the first row nor the last can, and no row before them could: then it is the
    column that is wrong.
    """

    def fits(row: int) -> bool:
        with suppress(ValueError):
            mapped_rows(batch.slice(row, 1), number_S[row : row + 1], columns, Counter())
            return True
        return False

    found: Counter[str] = Counter()
    try:
        rows = mapped_rows(batch, number_S, columns, found)
    except ValueError:
        if not has_rows and batch.num_rows > 1 and not fits(0) and not fits(batch.num_rows - 1):
            raise
        yield from _mapped_by_halves(batch, number_S, columns, rejected)
        return
    rejected.update(found)
    yield rows


def _mapped_by_halves(
    batch: pa.RecordBatch, number_S: np.ndarray, columns: ColumnMap, rejected: Counter[str]
) -> Iterator[pa.RecordBatch]:
    found: Counter[str] = Counter()
    try:
        rows = mapped_rows(batch, number_S, columns, found)
    except ValueError as error:
        middle = batch.num_rows // 2
        if not middle:
            rejected[str(error)] += 1
            return
        yield from _mapped_by_halves(batch.slice(0, middle), number_S[:middle], columns, rejected)
        yield from _mapped_by_halves(batch.slice(middle), number_S[middle:], columns, rejected)
        return
    rejected.update(found)
    yield rows


FORMAT = format_of(our_own_names())
