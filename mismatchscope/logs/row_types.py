"""Rows whose columns have our names and nearly our types, in our types."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .columns import BY_TOKEN, column_type

if TYPE_CHECKING:
    import pyarrow as pa


def in_our_types(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The same rows with every column in the type that `columns` gives it; floats by token may be double too.

    Raises `ValueError` for a column of values of another kind.
    """
    import pyarrow as pa

    arrays = []
    for name, array in zip(batch.schema.names, batch.columns, strict=True):
        wanted = column_type(name)
        if array.type == wanted or (name in BY_TOKEN and array.type == column_type(name, double=True)):
            arrays.append(array)
            continue
        try:
            arrays.append(array.cast(wanted))
        except pa.ArrowException:
            raise ValueError(f"its column {name} is {array.type}, not {wanted}") from None
    return pa.RecordBatch.from_arrays(arrays, names=batch.schema.names)
