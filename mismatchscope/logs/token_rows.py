"""Tables with a row a token -> tables with a row a response: consecutive rows of one sequence become its lists.

Shapes: N rows of tokens, S responses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..foreign_text import printable
from .column_map import ColumnMap
from .columns import BY_TOKEN
from .row_types import list_column
from .tables import Batch

if TYPE_CHECKING:
    import pyarrow as pa


def responses_of(batches: Iterable[Batch], columns: ColumnMap) -> Iterator[Batch]:
    """Whole responses, a batch at a time; what is of a response and not of a token is its first row's.

    Raises `ValueError` where rows of one response are not together: its lists would be pieces of it.
    """
    import pyarrow as pa

    keys = [columns.columns[name].column for name in ("sequence_id", "step") if name in columns.columns]
    seen: set[tuple[Any, ...]] = set()
    waiting: pa.Table | None = None
    number = 0
    for _, batch in batches:
        if keys[0] not in batch.schema.names:
            raise ValueError(f"it has no column {keys[0]}")
        keys = [name for name in keys if name in batch.schema.names]
        table = pa.Table.from_batches([batch])
        table = table if waiting is None else pa.concat_tables([waiting, table], promote_options="permissive")
        begin_S = _beginnings(table.select(keys))
        last = int(begin_S[-1]) if len(begin_S) else 0
        waiting = table.slice(last)
        if last:
            _check_new(table.select(keys).take(begin_S[:-1]), seen)
            yield _lists_of(table.slice(0, last), begin_S[:-1], columns, number)
            number += len(begin_S) - 1
    if waiting is not None and waiting.num_rows:
        _check_new(waiting.select(keys).slice(0, 1), seen)
        yield _lists_of(waiting, np.zeros(1, dtype=np.int64), columns, number)


def _beginnings(keys: pa.Table) -> np.ndarray:
    """Where another sequence begins, [S]."""
    import pyarrow.compute as pc

    if not keys.num_rows:
        return np.zeros(0, dtype=np.int64)
    changes_N = np.zeros(keys.num_rows - 1, dtype=bool)
    for column in keys.columns:
        key: Any = column.combine_chunks()
        changes: Any = pc.fill_null(pc.not_equal(key[1:], key[:-1]), True)
        changes_N |= changes.to_numpy(zero_copy_only=False)
    return np.append(0, np.flatnonzero(changes_N) + 1)


def _check_new(keys: pa.Table, seen: set[tuple[Any, ...]]) -> None:
    for key in zip(*(column.to_pylist() for column in keys.columns), strict=True):
        if key in seen:
            raise ValueError(
                f"rows of the response {printable(str(key[0]))} are not together: sort it by {keys.column_names[0]}"
            )
        seen.add(key)


def _lists_of(table: pa.Table, begin_S: np.ndarray, columns: ColumnMap, number: int) -> Batch:
    import pyarrow as pa

    of_tokens = {mapped.column for name, mapped in columns.columns.items() if name in BY_TOKEN}
    length_S = np.diff(np.append(begin_S, table.num_rows))
    arrays: list[pa.Array] = []
    for name in table.schema.names:
        column = table[name].combine_chunks()
        if name in of_tokens:
            arrays.append(list_column(column, length_S, np.ones(len(length_S), dtype=bool)))
        else:
            arrays.append(column.take(pa.array(begin_S)))
    return np.arange(number, number + len(begin_S)), pa.RecordBatch.from_arrays(arrays, names=table.schema.names)
