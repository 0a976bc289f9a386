"""Numbers of a pickle that follow each other, which are token ids and log-probs, decoded at once.

A pickle writes each as an instruction of its own: `K`, `M`, `J` and 1, 2 or 4 bytes of an integer, `G` and 8 of a
float (Python's `pickletools`). There are thousands for each of some hundred other instructions.
"""

from __future__ import annotations

import re

import numpy as np

_INT = re.compile(rb"K.|M..|J....", re.DOTALL)
_INTS = re.compile(rb"(?:K.|M..|J....){1,4096}+", re.DOTALL)
_FLOATS = re.compile(rb"(?:G.{8}){1,4096}+", re.DOTALL)
_FLOAT_TYPE = np.dtype([("code", "u1"), ("value", ">f8")])


def ints_at(data: memoryview, at: int) -> tuple[list[int], int]:
    """The integers that begin at a place of a pickle, and where they end; none where the pickle does."""
    run = _INTS.match(data, at)
    if run is None:
        return [], at
    width_N = np.fromiter(map(len, _INT.findall(run[0])), np.int64)
    byte_B = np.frombuffer(run[0], np.uint8).astype(np.int64)
    at_N = np.cumsum(width_N) - width_N + 1
    value_N = byte_B[at_N]
    for width, shifts in ((3, (8,)), (5, (8, 16, 24))):
        wide_M = np.flatnonzero(width_N == width)
        for place, shift in enumerate(shifts, 1):
            value_N[wide_M] += byte_B[at_N[wide_M] + place] << shift
    value_N[(width_N == 5) & (value_N >= 2**31)] -= 2**32
    return value_N.tolist(), run.end()


def floats_at(data: memoryview, at: int) -> tuple[list[float], int]:
    """The same of floats."""
    run = _FLOATS.match(data, at)
    return ([], at) if run is None else (np.frombuffer(run[0], _FLOAT_TYPE)["value"].tolist(), run.end())
