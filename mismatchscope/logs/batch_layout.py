"""How the responses of a recorded batch lie in its arrays, and their values end to end.

A batch is padded [B, T], packed end to end [E] with lengths, or B rows of their own lengths. All three are rows of
stored entries; of each row the tokens of the response are kept, and prompt and padding are not.

Shapes: B responses, E stored entries, R tokens of the responses.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import UsageError


@dataclass(frozen=True, eq=False)
class BatchLayout:
    """`stored_B` entries of each row, the response's own from `first_B` up to `last_B`."""

    stored_B: np.ndarray
    first_B: np.ndarray
    last_B: np.ndarray

    @cached_property
    def place_E(self) -> np.ndarray:
        """Place of each stored entry in its row."""
        return np.arange(self.stored_B.sum()) - np.repeat(np.cumsum(self.stored_B) - self.stored_B, self.stored_B)

    @cached_property
    def kept_E(self) -> np.ndarray:
        place_E, stored_B = self.place_E, self.stored_B
        return (place_E >= np.repeat(self.first_B, stored_B)) & (place_E < np.repeat(self.last_B, stored_B))

    @property
    def length_B(self) -> np.ndarray:
        return self.last_B - self.first_B

    def of_tokens(self, values: Any, name: str, dtype: type | None = None) -> np.ndarray:
        """What a column has for each token, [R] or [R, …]; one value a response stands for all of its tokens.

        Raises `UsageError` where the shape is another than that of the tokens.
        """
        value_E = end_to_end(values, name, dtype)
        count, total = len(self.stored_B), len(self.kept_E)
        if len(value_E) == count != total and value_E.ndim == 1:
            return np.repeat(value_E, self.length_B)
        if len(value_E) != total:
            raise UsageError(
                f"{name} has {len(value_E)} values for {total} entries of token_ids.",
                hint="all arrays of a batch have the shape of token_ids",
            )
        return value_E[self.kept_E]  # a copy: the trainer may go on to change its own in place

    def of_responses(self, values: Any, name: str) -> list[Any]:
        """One value a response, from one for all, [B] or [B, 1]."""
        count = len(self.stored_B)
        if values is None or isinstance(values, str) or np.ndim(values) == 0:
            return [_item(values)] * count
        listed = [_item(value) for value in (values.ravel() if isinstance(values, np.ndarray) else values)]
        if len(listed) != count:
            raise UsageError(
                f"{name} has {len(listed)} values for {count} responses.", hint="one for all, or one for each"
            )
        return listed


def layout_of(
    token_ids: Any, mask: Any = None, lengths: Any = None, cu_seqlens: Any = None, prompt_lengths: Any = None
) -> BatchLayout:
    """The layout of a batch; without `lengths` a response ends at the last 1 of its mask, or with its row.

    Raises `UsageError` where the arrays do not fit one another.
    """
    if cu_seqlens is not None:
        lengths = np.diff(np.asarray(cu_seqlens, dtype=np.int64))
    given_B = None if lengths is None else np.asarray(lengths, dtype=np.int64).ravel()
    if cu_seqlens is not None or not _has_rows(token_ids):
        if given_B is None:
            raise UsageError(
                "token_ids is one row of numbers: it does not say where a response ends.",
                hint="give lengths=[…] or cu_seqlens=[0, …] of a packed batch, or one row a response",
            )
        stored_B = given_B
    else:
        stored_B = np.array([len(row) for row in token_ids], dtype=np.int64)
    first_B = np.zeros_like(stored_B) if prompt_lengths is None else np.asarray(prompt_lengths, np.int64).ravel()
    last_B = stored_B if given_B is None else given_B
    if len(first_B) != len(stored_B) or len(last_B) != len(stored_B):
        raise UsageError(
            f"lengths or prompt_lengths are not {len(stored_B)} values.", hint="give one for each response"
        )
    entries = len(end_to_end(token_ids, "token_ids"))
    if entries != stored_B.sum() or ((first_B < 0) | (last_B < first_B) | (last_B > stored_B)).any():
        raise UsageError(
            f"The lengths do not fit token_ids, which has {entries} entries in {len(stored_B)} rows.",
            hint="lengths count the entries of each row, prompt_lengths those of its prompt",
        )
    layout = BatchLayout(stored_B, first_B, last_B)
    if mask is None or given_B is not None:
        return layout
    chosen_E = mask_values(end_to_end(mask, "mask"))
    if len(chosen_E) != entries:
        raise UsageError(
            f"mask has {len(chosen_E)} values for {entries} entries of token_ids.", hint="give both one shape"
        )
    past_E = np.where(chosen_E, layout.place_E + 1, 0)
    filled_B, start_B = stored_B > 0, np.cumsum(stored_B) - stored_B
    last_B = first_B.copy()
    if filled_B.any():
        last_B[filled_B] = np.maximum(first_B[filled_B], np.maximum.reduceat(past_E, start_B[filled_B]))
    return BatchLayout(stored_B, first_B, last_B)


def end_to_end(values: Any, name: str, dtype: type | None = None) -> np.ndarray:
    """The rows of an array or a list one after the other, [E] or [E, …]. `None` among floats becomes NaN.

    Raises `UsageError` for what is no array of numbers.
    """
    try:
        if isinstance(values, np.ndarray):
            array = values.reshape(-1, *values.shape[2:]) if values.ndim > 1 else values
        elif _has_rows(values):
            rows = [np.asarray(row, dtype=dtype) for row in values]
            array = np.concatenate([row for row in rows if len(row)] or [np.empty(0)])
        else:
            array = np.asarray(values, dtype=dtype)
        array = array if dtype is None else array.astype(dtype, copy=False)
    except (TypeError, ValueError):
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "buif" or array.ndim == 0:
        raise UsageError(f"{name} is no array of numbers.", hint="give lists, numpy arrays or torch tensors")
    return array


def mask_values(mask: np.ndarray) -> np.ndarray:
    """A mask as booleans. Raises `UsageError` for values that are neither 0 nor 1."""
    if mask.dtype == bool:
        return mask
    chosen = mask == 1
    if not (chosen | (mask == 0)).all():
        raise UsageError(
            "mask has values that are neither 0 nor 1.", hint="give weights=… beside a mask of 0 and 1"
        )
    return chosen


def _has_rows(values: Any) -> bool:
    if isinstance(values, np.ndarray):
        return values.ndim > 1
    listed = isinstance(values, list | tuple) and len(values) > 0
    return listed and isinstance(values[0], list | tuple | np.ndarray) and np.ndim(values[0]) > 0


def _item(value: Any) -> Any:
    """A Python value of a numpy scalar; None for NaN."""
    value = value.item() if isinstance(value, np.ndarray | np.generic) else value
    return None if isinstance(value, float) and value != value else value
