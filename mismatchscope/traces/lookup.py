"""A few rows out of a trace, by their place: nothing else of it is kept.

Shapes: P places asked for.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from .reader import Trace, reading
from .row_groups import batches_of
from .schema import TOKENS

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
        file, names = trace.parquet(TOKENS), ["sequence_id", "position", *columns]
        for first, batch in batches_of(trace.path / TOKENS, file, {place[0] for place in wanted}, names):
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
