"""Responses as a file of any content has them, checked one by one -> rows of the form of `columns`.

Shapes: R tokens of a response, K kept ids a token, E chosen experts of a token, layer after layer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .columns import BY_ROW, BY_TOKEN, LOGPROBS, column_type
from .row_builder import list_array

if TYPE_CHECKING:
    import pyarrow as pa

EMPTY = "no response token"
OTHER_LENGTHS = "lists of other lengths"
NO_BEHAVIOR = "no log-probs of the sampler"
NO_NUMBERS = "values that are no numbers"
NO_MASK = "a mask with other values than 0 and 1"
NO_TOKENS = "token ids that are negative or beyond 32 bits"


class CheckedRows:
    """Collects responses, and counts by reason those that are no row."""

    def __init__(self) -> None:
        self.rejected: Counter[str] = Counter()
        self._rows: list[dict[str, Any]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: Mapping[str, Any]) -> bool:
        """Take in a response: values by column, None where it has none.

        Those by token are arrays [R], a mask may be one of numbers; `kept_ids` is (ids end to end, offsets
        [R + 1]), `experts` [R, E]. False where it is rejected.
        """
        found = {name: value for name, value in row.items() if value is not None}
        why = _reason(found)
        if why is None:
            self._rows.append(found)
        else:
            self.rejected[why] += 1
        return why is None

    def batch(self) -> pa.RecordBatch:
        """The rows so far, which are then gone from here; columns that no row has are left out."""
        import pyarrow as pa

        rows, self._rows = self._rows, []
        names = [name for name in (*BY_ROW, *BY_TOKEN, *_NESTED) if any(name in row for row in rows)]
        arrays = [_column(name, [row.get(name) for row in rows]) for name in names]
        return pa.RecordBatch.from_arrays(arrays, names=names)


def _reason(row: Mapping[str, Any]) -> str | None:
    lists = {name: value for name, value in row.items() if name in BY_TOKEN}
    if any(np.ndim(value) != 1 or np.asarray(value).dtype.kind not in "biuf" for value in lists.values()):
        return NO_NUMBERS
    if LOGPROBS["behavior"] not in lists:
        return NO_BEHAVIOR
    length = len(lists[LOGPROBS["behavior"]])
    lengths = [len(value) for value in lists.values()]
    lengths += [len(row["kept_ids"][1]) - 1] if "kept_ids" in row else []
    lengths += [len(row["experts"])] if "experts" in row else []
    ids = lists.get("token_ids")
    if ids is not None and len(ids) and not 0 <= ids.min() <= ids.max() < 2**31:
        return NO_TOKENS
    if any(other != length for other in lengths):
        return OTHER_LENGTHS
    mask = np.asarray(lists.get("mask", True))
    if mask.dtype != bool and ((mask != 0) & (mask != 1)).any():
        return NO_MASK
    return None if length else EMPTY


def _column(name: str, values: list[Any]) -> pa.Array:
    import pyarrow as pa

    if name in BY_ROW:
        return pa.array(values, column_type(name))
    if name in _NESTED:
        return _NESTED[name](values)
    double = any(value is not None and np.asarray(value).dtype == np.float64 for value in values)
    return _lists(values, column_type(name, double=double))


def _lists(values: list[Any], type: Any) -> pa.Array:
    to = type.value_type.to_pandas_dtype()
    return list_array([None if value is None else np.asarray(value).astype(to) for value in values])


def _kept_ids(values: list[Any]) -> pa.Array:
    """Of pairs (ids end to end, offsets)."""
    import pyarrow as pa

    ids, counts = zip(
        *[value if value is not None else (np.empty(0), np.zeros(1)) for value in values], strict=True
    )
    return _nested(
        np.concatenate(ids).astype(np.int32),
        np.concatenate([np.diff(offsets) for offsets in counts]),
        values,
        [len(offsets) - 1 for offsets in counts],
        pa.int32(),
    )


def _experts(values: list[Any]) -> pa.Array:
    """Of arrays [R, E]."""
    import pyarrow as pa

    present = [value for value in values if value is not None]
    return _nested(
        np.concatenate([value.ravel() for value in present]).astype(np.int16),
        np.concatenate([np.full(len(value), value.shape[1]) for value in present]),
        values,
        [0 if value is None else len(value) for value in values],
        pa.int16(),
    )


def _nested(
    flat: np.ndarray, count_N: np.ndarray, values: list[Any], lengths: list[int], type: pa.DataType
) -> pa.Array:
    import pyarrow as pa

    inner = pa.ListArray.from_arrays(
        pa.array(np.concatenate([[0], np.cumsum(count_N)]), pa.int32()), pa.array(flat)
    )
    outer = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    missing = pa.array([value is None for value in values])
    return pa.ListArray.from_arrays(outer, inner, type=pa.list_(pa.list_(type)), mask=missing)


def _prompts(values: list[Any]) -> pa.Array:
    return _lists(values, column_type("prompt_token_ids"))


_NESTED: dict[str, Callable[[list[Any]], Any]] = {
    "prompt_token_ids": _prompts,
    "kept_ids": _kept_ids,
    "experts": _experts,
}
