"""Rows whose columns have our names and nearly our types, in our types.

Shapes: S rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .columns import BY_TOKEN, LOGPROBS, column_type

if TYPE_CHECKING:
    import pyarrow as pa


def is_nearly_ours(name: str, found: pa.DataType) -> bool:
    """Whether a column of another type may hold the same: numbers as wide or wider, texts, lists of them."""
    wanted = column_type(name)
    while _is_list(wanted) and _is_list(found):
        wanted, found = wanted.value_type, found.value_type  # type: ignore[attr-defined]
    return _kind(found) in (_kind(wanted), "null")


def _is_list(type: pa.DataType) -> bool:
    import pyarrow.types as types

    return types.is_list(type) or types.is_large_list(type) or types.is_fixed_size_list(type)


def _kind(type: pa.DataType) -> str:
    import pyarrow.types as types

    if types.is_dictionary(type):
        return _kind(type.value_type)
    kinds = {
        "null": types.is_null,
        "bool": types.is_boolean,
        "int": lambda type: types.is_integer(type) and not types.is_uint64(type),
        "float": types.is_floating,
        "text": lambda type: types.is_string(type) or types.is_large_string(type),
    }
    return next((kind for kind, is_of in kinds.items() if is_of(type)), str(type))


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


def list_column(values: Any, length_S: np.ndarray, there_S: np.ndarray) -> pa.Array:
    """A column of lists: `values`, an array, end to end; how long each row's are, and whether it has a list."""
    import pyarrow as pa

    offsets = np.append(0, np.cumsum(length_S)).astype(np.int32)
    missing = None if there_S.all() else pa.array(~there_S, pa.bool_())
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values), mask=missing)


def no_rows() -> pa.RecordBatch:
    """What is left where every row was rejected."""
    import pyarrow as pa

    return pa.RecordBatch.from_arrays(
        [pa.array([], column_type(name)) for name in LOGPROBS.values()], names=list(LOGPROBS.values())
    )
