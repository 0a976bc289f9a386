"""One pass over values that counts them in bins, and says where they lie and how many have no bin.

Shape suffixes: N values.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from . import kernel

Array = np.ndarray

_RANGE = np.dtype(
    [
        ("smallest", np.float64),
        ("largest", np.float64),
        *(
            (name, np.int64)
            for name in ("least_bits", "most_bits", "minus_infinite", "zeros", "infinite", "outside")
        ),
    ]
)
"""The layout of the C struct of value_counts.c."""


class ValueRange(NamedTuple):
    """`least_bits` and `most_bits` are those of the magnitudes that are neither zero nor infinite, of which the
    sign bit is cleared; `most_bits` is negative where there is none. The next three count values, the last those
    that are finite, not zero and in none of the bins that were counted into."""

    smallest: float
    largest: float
    least_bits: int
    most_bits: int
    minus_infinite: int
    zeros: int
    infinite: int
    outside: int


def value_range(value_N: Array) -> ValueRange:
    """Of at least one value, none of them NaN."""
    library = kernel.library()
    if library is None:
        return _range_by_numpy(value_N)
    found = np.empty(1, _RANGE)
    library.value_range(kernel.address(value_N), value_N.size, found.ctypes.data)
    return ValueRange(*found[0].item())


def _range_by_numpy(value_N: Array) -> ValueRange:
    magnitude_N = np.abs(value_N[np.isfinite(value_N) & (value_N != 0)])
    least, most = (magnitude_N.min(), magnitude_N.max()) if magnitude_N.size else (np.nan, -0.0)
    return ValueRange(
        float(value_N.min()),
        float(value_N.max()),
        int(np.float64(least).view(np.int64)),
        int(np.float64(most).view(np.int64)),
        int(np.count_nonzero(value_N == -np.inf)),
        int(np.count_nonzero(value_N == 0)),
        int(np.count_nonzero(value_N == np.inf)),
        outside=0,
    )


def add_bins(value_N: Array, shift: int, first: int, count_B2: Array) -> ValueRange:
    """Count values into [B, 2], of positive and of negative ones, int64, and say where they lie.

    Bin b has the magnitudes whose bits, shifted by `shift`, are `first` + b. Zeros and infinities are in none.
    """
    library = kernel.library()
    if library is not None:
        found = np.empty(1, _RANGE)
        counts = kernel.address(count_B2, np.int64)
        library.bin_counts(
            kernel.address(value_N), value_N.size, shift, first, len(count_B2), counts, found.ctypes.data
        )
        return ValueRange(*found[0].item())
    value_M = value_N[np.isfinite(value_N) & (value_N != 0)]
    bin_M, negative_M = np.abs(value_M).view(np.int64) >> shift, value_M < 0
    within_M = (bin_M >= first) & (bin_M < first + len(count_B2))
    place_M = 2 * (bin_M - first) + negative_M
    count_B2 += np.bincount(place_M[within_M], minlength=count_B2.size).reshape(-1, 2)
    return _range_by_numpy(value_N)._replace(outside=int(np.count_nonzero(~within_M)))
