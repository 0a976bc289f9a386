"""List columns of Parquet as arrays, without a Python object per entry.

Shapes: N rows, K the longest list among them, F all entries end to end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa


def flat(lists: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """All entries end to end [F], and how many each row has [N]; a null list has none."""
    import pyarrow as pa

    assert isinstance(lists, pa.ListArray), "a list column"
    length_N = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    return lists.flatten().to_numpy(zero_copy_only=False), length_N


def pad(value_F: np.ndarray, length_N: np.ndarray, fill: float, width: int | None = None) -> np.ndarray:
    """The rows [N, K] (K: `width`, or the longest) of a flat list column, short ones filled up at the end."""
    width = int(length_N.max(initial=0)) if width is None else width
    if (length_N == width).all():
        return value_F.reshape(len(length_N), width)
    value_NK = np.full((len(length_N), width), fill, dtype=value_F.dtype)
    value_NK[np.arange(width) < length_N[:, None]] = value_F
    return value_NK


def last(value_F: np.ndarray, length_N: np.ndarray) -> np.ndarray:
    """The last entry of each row [N], NaN where it has none."""
    last_N = np.full(len(length_N), np.nan)
    filled = length_N > 0
    last_N[filled] = value_F[np.cumsum(length_N)[filled] - 1]
    return last_N


class RepeatedId(NamedTuple):
    row: int
    id: int


def repeated_id(id_NK: np.ndarray) -> RepeatedId | None:
    """The first row that lists an id twice, and the id; negative ids are padding."""
    sorted_NK = np.sort(id_NK, axis=1)
    twice = (sorted_NK[:, 1:] == sorted_NK[:, :-1]) & (sorted_NK[:, 1:] >= 0)
    if not twice.any():
        return None
    row = int(twice.any(axis=1).argmax())
    return RepeatedId(row, int(sorted_NK[row, 1:][twice[row]][0]))
