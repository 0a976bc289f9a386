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


class RepeatedId(NamedTuple):
    row: int
    id: int


def repeats(id_NK: np.ndarray) -> np.ndarray:
    """Boolean [N]: which rows list an id twice; negative ids are padding."""
    sorted_NK = np.sort(id_NK, axis=1)
    twice_NK = (sorted_NK[:, 1:] == sorted_NK[:, :-1]) & (sorted_NK[:, 1:] >= 0)
    return twice_NK.any(axis=1) if twice_NK.any() else np.zeros(len(id_NK), dtype=bool)


def repeated_id(id_NK: np.ndarray) -> RepeatedId | None:
    """The first row that lists an id twice, and the id."""
    twice_N = repeats(id_NK)
    if not twice_N.any():
        return None
    row = int(twice_N.argmax())
    id_K, times_K = np.unique(id_NK[row], return_counts=True)
    return RepeatedId(row, int(id_K[(times_K > 1) & (id_K >= 0)][0]))


def listed_at(id_NK: np.ndarray, token_N: np.ndarray) -> np.ndarray:
    """Where in its list each row has its token [N], -1 where it has not."""
    if not id_NK.shape[1]:
        return np.full(len(token_N), -1)
    at_N = np.zeros(len(token_N), dtype=np.int64)
    # Most tokens are the first of their list: of the other lists alone is the rest looked at.
    rest = np.flatnonzero(id_NK[:, 0] != token_N)
    found_RK = id_NK[rest] == token_N[rest, None]
    at_N[rest] = np.where(found_RK.any(axis=1), found_RK.argmax(axis=1), -1)
    return at_N
