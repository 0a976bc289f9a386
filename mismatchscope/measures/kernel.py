"""The C files of this folder as Python calls them: compiled at first use, on rows of numpy's memory, in threads."""

from __future__ import annotations

import ctypes
import functools
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..foreign_text import printable
from . import compiled

_PIECES_PER_THREAD = 4  # so that a thread which loses its core does not make the others wait


def _row_of(*names: str) -> np.dtype:
    return np.dtype([(name, np.float64) for name in names])


# One row of results each, in the order of the C structs of full.c and topk.c; that of token_sums.c is beside it.
FULL_RESULT = _row_of(
    *("mass_mu", "mass_pi", "tv", "kl", "reverse_kl", "chi2", "js", "leak", "reverse_leak"),
    *("entropy_mu", "entropy_pi", "max_abs_dlogp", "max_abs_dlogp_mass", "top1_agree"),
    *("logsumexp_mu", "logsumexp_pi"),
)
TOPK_RESULT = _row_of("mass_mu", "mass_pi", "tv", "kl", "reverse_kl", "js", "leak")


_TYPES: dict[str, Any] = {
    "p": ctypes.c_void_p,
    "i": ctypes.c_int,
    "n": ctypes.c_int64,
    "u": ctypes.c_uint64,
    "d": ctypes.c_double,
}
_ARGUMENTS = {  # of which "pn" of the first three is a row and the bytes to the next
    "logit_divergences": "pnipninndp",
    "logp_divergences": "pnpnnndp",
    "topk_sums": "pnpnnnp",
    "token_sums": "ppippnpp",
    "token_figures_and_sums": "pppnppppp",
    "native_sums": "ppippnipp",
    "ratio_bins": "ppnp",
    "k3_values": "pnp",
    "value_range": "pnp",
    "bin_counts": "pninnpp",
    "half_octave_counts": "pppninnp",
    "exceedance_counts": "pppnpnpp",
    "position_sums": "ppnppp",
    "position_bin_counts": "ppniinnpp",
    "log_odds_sums": "pppnddp",
    "column_counts": "ppppnpp",
    "response_sums": "pppnpp",
    "places_below": "pppnup",
    "binned_sums": "pppnpnpp",
}
_COUNTING = ("places_below",)


def backend() -> Literal["c", "numpy"]:
    """What measures arrays in main memory here: the compiled files, or numpy where they cannot be compiled."""
    return "numpy" if library() is None else "c"


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled files. None, with a warning the first time, where they cannot be compiled."""
    try:
        functions = compiled.load(sorted(Path(__file__).parent.glob("*.[ch]")))
    except compiled.CompileError as error:
        logging.getLogger(__name__).warning("Divergences take the slow path: %s.", printable(str(error)))
        return None
    for name, types in _ARGUMENTS.items():
        function = getattr(functions, name)
        function.argtypes = [_TYPES[letter] for letter in types]
        function.restype = ctypes.c_int64 if name in _COUNTING else None
    return functions


def rows_at(array: np.ndarray, row: int) -> tuple[int, int]:
    """The address of a row and the bytes from one row to the next."""
    stride = array.strides[0]
    return array.ctypes.data + row * stride, stride


def address(array: np.ndarray, dtype: type = np.float64) -> int:
    """Where the values of a contiguous array of this type lie.

    Raises `ValueError` for any other array: a kernel would read what is not there.
    """
    if array.dtype != dtype or not array.flags.c_contiguous:
        raise ValueError(f"a kernel needs contiguous values of {np.dtype(dtype)}, not {array.dtype}")
    return array.ctypes.data


def has_adjacent_columns(array: np.ndarray) -> bool:
    """Whether a kernel can read a block of rows where it lies; the rows may be any distance apart."""
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
