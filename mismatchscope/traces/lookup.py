"""A few rows out of a trace, by their place: nothing else of it is kept.

Shapes: P places asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from .reader import BATCH_ROWS, Trace, reading
from .schema import TOKENS

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

Place = tuple[int, int]
"""(sequence id, position in the response)"""


def find_tokens(trace: Trace, places: Collection[Place], columns: list[str]) -> dict[Place, dict[str, Any]]:
    """These rows of tokens.parquet: each as its `columns`, and its number in the file as `row`.

    A place that the trace does not have is left out. Only row groups whose range of sequences holds one are read,
    some rows at a time. Raises `TraceError` for a file that cannot be read.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted = set(places)
    ids, positions = (pa.array({place[key] for place in wanted}, pa.int64()) for key in (0, 1))
    found: dict[Place, dict[str, Any]] = {}
    with reading(trace.path / TOKENS):
        for first, batch in _batches(trace.parquet(TOKENS), wanted, ["sequence_id", "position", *columns]):
            # Each alone lets too many through, but few: the lists of the rest never become Python objects.
            chosen = pc.and_(
                pc.is_in(batch["sequence_id"], ids), pc.is_in(batch["position"].cast(pa.int64()), positions)
            )
            rows = pc.indices_nonzero(chosen).to_numpy().tolist()
            for row, entry in zip(rows, batch.filter(chosen).to_pylist(), strict=True):
                place = entry.pop("sequence_id"), entry.pop("position")
                if place in wanted:
                    found[place] = entry | {"row": first + row}
    return found


def _batches(
    file: pq.ParquetFile, places: Collection[Place], columns: list[str]
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """(number of its first row, batch) of the row groups that may hold a place."""
    at = file.schema_arrow.get_field_index("sequence_id")
    first = 0
    for group in range(file.num_row_groups):
        facts = file.metadata.row_group(group)
        ids = facts.column(at).statistics
        low, high = (None, None) if ids is None else (ids.min, ids.max)
        if low is None or high is None or any(low <= sequence_id <= high for sequence_id, _ in places):
            row = first
            for batch in file.iter_batches(batch_size=BATCH_ROWS, row_groups=[group], columns=columns):
                yield row, batch
                row += batch.num_rows
        first += facts.num_rows
