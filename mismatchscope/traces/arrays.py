"""A trainer's batch as rows of numpy arrays: from lists, numpy arrays and torch tensors, ragged or padded.

Shapes: B sequences, T tokens of one sequence.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import UsageError
from .stated_facts import json_of

Rows = Any  # one row a sequence: a list of lists, arrays or tensors, or one array or tensor [B, T]
PerSequence = Any  # one value for all sequences, or one for each

_IDS_END = 2**31


def numbers(values: Any, name: str) -> np.ndarray:
    """`values` as an array of numbers, on the CPU and out of any graph; bfloat16 becomes float32.

    Raises `UsageError` for text, for rows of different lengths, and for what is no array at all.
    """
    torch = sys.modules.get("torch")  # a tensor cannot come from a module that nobody has imported
    if torch is not None and isinstance(values, torch.Tensor):
        tensor = values.detach().cpu()
        values = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError):
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "buif":
        found = "text" if array.dtype.kind in "US" else "not an array of numbers"
        raise UsageError(f"{name} is {found}.", hint="give numbers: lists, numpy arrays or torch tensors")
    return array


def rows(values: Rows, name: str, count: int | None = None) -> list[np.ndarray]:
    """The B rows of `values`. Raises `UsageError` for what has no rows, or not `count` of them."""
    if isinstance(values, Sequence) and not isinstance(values, str):
        found = [numbers(row, f"{name}[{index}]") for index, row in enumerate(values)]
    else:
        array = numbers(values, name)
        found = list(array) if array.ndim else [array]
    if any(row.ndim == 0 for row in found):
        raise UsageError(
            f"{name} is a list of numbers: it has no rows.",
            hint=f"one row a sequence, even for a single one: {name}=[[…]], or an array [B, T]",
        )
    if count is not None and len(found) != count:
        raise UsageError(
            f"{name} has {len(found)} rows, responses has {count}.",
            hint=f"give one row a response: repeat each of {name} once for every response to it"
            if count % max(1, len(found)) == 0
            else "give one row a response",
        )
    return found


def masks(values: Rows | None, name: str, like: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Boolean rows as long as those of `like`; all True where `values` is None."""
    if values is None:
        return [np.ones(len(row), dtype=bool) for row in like]
    found = aligned(values, name, like)
    for index, row in enumerate(found):
        legal = np.isin(row, (0, 1))
        if not legal.all():
            at = int(legal.argmin())
            raise UsageError(
                f"{name}[{index}] has {row[at]} at position {at}, neither 0 nor 1.", hint="1 is a token, 0 is none"
            )
    return [row.astype(bool) for row in found]


def aligned(values: Rows, name: str, like: Sequence[np.ndarray], ndim: int = 1) -> list[np.ndarray]:
    """Rows of `ndim` axes, the first of which is as long as the row of tokens `like` it."""
    found = rows(values, name, len(like))
    for index, (row, tokens) in enumerate(zip(found, like, strict=True)):
        if row.ndim != ndim or len(row) != len(tokens):
            raise UsageError(
                f"{name}[{index}] has the shape {row.shape} for {len(tokens)} tokens.",
                hint="all rows that describe one sequence have its length: without the prompt, and padded alike",
            )
    return found


def token_ids(row_T: np.ndarray, name: str) -> np.ndarray:
    """int32 [T]. Raises `UsageError` for what cannot be token ids."""
    if row_T.ndim != 1 or (row_T.size and row_T.dtype.kind not in "ui"):
        raise UsageError(
            f"{name} is {row_T.dtype} of shape {row_T.shape}, not a row of token ids.",
            hint="give the ids that the model read, not text: tokenising twice is how two sides come apart",
        )
    outside_T = (row_T < 0) | (row_T >= _IDS_END)
    if outside_T.any():
        at = int(outside_T.argmax())
        raise UsageError(
            f"{name} has {row_T[at]} at position {at}: no token has this id.",
            hint="leave padding out with a mask: mask=… for responses, prompt_mask=… for prompts",
        )
    return row_T.astype(np.int32)


def per_sequence(value: PerSequence | None, name: str, kind: type[int] | type[str], count: int) -> list[Any]:
    """One value of `kind` a sequence, from one that all share or one for each; None stays None."""
    if value is None or isinstance(value, str | int):
        listed = [value] * count
    else:
        listed = list(value) if isinstance(value, Sequence) else numbers(value, name).ravel().tolist()
    if len(listed) != count:
        raise UsageError(
            f"{name} has {len(listed)} values for {count} responses.", hint="one for all, or one for each"
        )
    if value is None:
        return listed
    if kind is str:
        return [None if each is None else str(json_of(str(each), name)) for each in listed]
    found = numbers(listed, name)
    if found.dtype.kind not in "iu" or found.ndim != 1 or (found < 0).any():
        raise UsageError(f"{name} has values that are not integers from 0.", hint=f"{name}=[0, 1, 2, …]")
    return found.tolist()
