"""Columns of lists as flat arrays, and rows of them cut out.

Shapes: S rows, V all values of a column end to end, R those of the tokens that are cut out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa


_LONG = 32  # from so many values a row on, slices are faster than indices


@dataclass(frozen=True, eq=False)
class FlatLists:
    """A column of lists: all values, where each row's begin, how many they are, and which rows have a list."""

    value_V: np.ndarray
    start_S: np.ndarray
    length_S: np.ndarray
    there_S: np.ndarray


def flat_lists(column: Any, name: str, kind: str) -> FlatLists:
    """A column of lists of numbers, `kind` being one of "float", "int" and "mask"; texts are lists in JSON.

    Raises `ValueError` for a column of anything else, by its name.
    """
    import pyarrow as pa
    import pyarrow.types as types

    if types.is_string(column.type) or types.is_large_string(column.type):
        column = _parsed(column, name)
    if types.is_fixed_size_list(column.type) or types.is_large_list(column.type):
        column = column.cast(pa.list_(column.type.value_type))
    if types.is_null(column.type):
        column = pa.nulls(len(column), pa.list_(pa.float64()))
    if not types.is_list(column.type):
        raise ValueError(f"its column {name} is {column.type}, not a list")
    there_S = column.is_valid().to_numpy(zero_copy_only=False)
    length_S = np.where(there_S, np.diff(column.offsets.to_numpy()), 0).astype(np.int64)
    try:
        value_V = _numbers(column.flatten(), kind)
    except pa.ArrowException:
        raise ValueError(f"its column {name} is {column.type}, which is not of type {kind}") from None
    return FlatLists(value_V, np.cumsum(length_S) - length_S, length_S, there_S)


def single_values(column: pa.Array, kind: str, name: str) -> FlatLists:
    """A column of one number a row, as lists of one."""
    import pyarrow as pa

    try:
        value_V = _numbers(column, kind)
    except pa.ArrowException:
        raise ValueError(f"its column {name} is {column.type}, which is not of type {kind}") from None
    rows = np.arange(len(column))
    return FlatLists(value_V, rows, np.ones_like(rows), np.ones(len(rows), dtype=bool))


def cut(lists: FlatLists, row_K: np.ndarray, first_K: np.ndarray, length_K: np.ndarray) -> np.ndarray:
    """Of some rows so many values from one of them on, end to end, [R]; NaN, or 0 among integers, beyond a list."""
    is_inside = ((first_K >= 0) & (first_K + length_K <= lists.length_S[row_K])).all()
    if is_inside and len(row_K) and length_K.mean() > _LONG:
        begin_K = lists.start_S[row_K] + first_K
        slices = zip(begin_K.tolist(), (begin_K + length_K).tolist(), strict=True)
        return np.concatenate([lists.value_V[begin:end] for begin, end in slices])
    end_K = np.cumsum(length_K)
    own_R = np.repeat(np.arange(len(row_K)), length_K)
    place_R = np.arange(int(end_K[-1]) if len(end_K) else 0) - (end_K - length_K)[own_R] + first_K[own_R]
    row_R = row_K[own_R]
    inside_R = (place_R >= 0) & (place_R < lists.length_S[row_R])
    index_R = lists.start_S[row_R] + place_R
    if inside_R.all():
        return lists.value_V[index_R]
    filler = np.nan if lists.value_V.dtype.kind == "f" else 0
    found_R = np.full(len(index_R), filler, dtype=lists.value_V.dtype)
    found_R[inside_R] = lists.value_V[index_R[inside_R]]
    return found_R


def _numbers(values: pa.Array, kind: str) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.types as types

    if kind == "float":
        wanted = values.type if types.is_float32(values.type) else pa.float64()
        return values.cast(wanted).to_numpy(zero_copy_only=False)
    if kind == "int":
        ints = values.cast(pa.int32())
        return (ints.fill_null(-1) if ints.null_count else ints).to_numpy(zero_copy_only=False)
    if types.is_boolean(values.type) and not values.null_count:
        return values.to_numpy(zero_copy_only=False)
    return values.cast(pa.float32()).to_numpy(zero_copy_only=False)  # null becomes NaN


def _parsed(column: Any, name: str) -> Any:
    import orjson
    import pyarrow as pa

    try:
        rows = [None if text is None else orjson.loads(text) for text in column.to_pylist()]
        return pa.array(rows, pa.list_(pa.float64()))
    except (ValueError, pa.ArrowException):
        raise ValueError(f"its column {name} has texts that are no lists of numbers") from None
