"""`fused.c` as Python calls it: compiled at first use, on rows of numpy's memory, in threads."""

from __future__ import annotations

import ctypes
import functools
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np

from mismatchscope.measures import compiled

_PIECES_PER_THREAD = 4  # so that a thread which loses its core does not make the others wait


def backend() -> Literal["c", "numpy"]:
    """What measures arrays in main memory here: the compiled file, or numpy where it cannot be compiled."""
    return "numpy" if library() is None else "c"


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled file. None, with a warning the first time, where it cannot be compiled."""
    try:
        functions = compiled.load(Path(__file__).with_name("fused.c"))
    except compiled.CompileError as error:
        logging.getLogger(__name__).warning("Full-vocabulary divergences take the slow path: %s.", error)
        return None
    rows = [ctypes.c_void_p, ctypes.c_int64]  # the first one, and bytes to the next
    shape = [ctypes.c_int64, ctypes.c_int64]
    dtype = [ctypes.c_int]
    functions.fused_divergences.argtypes = [*rows, *dtype, *rows, *dtype, *shape, ctypes.c_void_p]
    functions.full_divergences.argtypes = [*rows, *rows, *shape, ctypes.c_float, ctypes.c_void_p]
    functions.fused_divergences.restype = functions.full_divergences.restype = None
    return functions


def rows_at(array: np.ndarray, row: int) -> tuple[int, int]:
    """The address of a row and the bytes from one row to the next."""
    stride = array.strides[0]
    return array.ctypes.data + row * stride, stride


def has_adjacent_ids(array: np.ndarray) -> bool:
    """Whether the kernel can read a block [rows, ids] where it lies; the rows may be any distance apart."""
    return bool(array.flags.aligned and (array.shape[1] == 1 or array.strides[1] == array.itemsize))


def in_pieces(measure: Callable[[int, int], None], n_rows: int, threads: int) -> None:
    """Call `measure(begin, end)` for pieces of the rows, in threads: ctypes and numpy both let go of the
    interpreter's lock."""
    pieces = min(n_rows, threads * _PIECES_PER_THREAD)
    edges = [n_rows * i // pieces for i in range(pieces + 1)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(measure, edges[:-1], edges[1:]))


def available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
