"""A response whose values lie on several context-parallel ranks, put together again.

A sequence of T tokens is cut into 2·C chunks of equal length, padding included; rank r of C has the chunks r and
2·C − 1 − r, so that all have the same work (Dubey et al. 2024, section 3.3.2). Of these a rank keeps what predicts
the response.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def reassembled(
    slices: Mapping[int, np.ndarray], ranks: int, total: int, response: int, padded: int | None = None
) -> np.ndarray | None:
    """The values of a response, [response], from those of each rank; None where they do not fit this layout.

    `total` is prompt and response, `padded` what all sequences of a batch were padded to, where they were.
    """
    if set(slices) != set(range(ranks)):
        return None
    chunk = -(-(total if padded is None else padded) // (2 * ranks))
    first = total - response - 1  # of the states that predict the response
    values = np.zeros(response, np.result_type(*slices.values()))
    filled = np.zeros(response, dtype=bool)
    for rank, held in slices.items():
        at = 0
        for number in (rank, 2 * ranks - 1 - rank):
            start, stop = max(number * chunk, first) - first, min((number + 1) * chunk, total - 1) - first
            if start >= stop:
                continue
            if held.ndim != 1 or at + stop - start > len(held):
                return None
            values[start:stop] = held[at : at + stop - start]
            filled[start:stop] = True
            at += stop - start
        if at != len(held):
            return None
    return values if filled.all() else None
