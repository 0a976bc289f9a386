"""Bins read off the bits of a float are those that a binary search finds."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mismatchscope.measures.quantile_limits import POSITIVE, SIGNED, _signed_bins, _thresholds_below

EDGES = np.array([0.0, *POSITIVE, np.inf, 5e-324, 1e-300, 1e300])
AROUND = np.concatenate([EDGES, np.nextafter(EDGES, np.inf), np.nextafter(EDGES, -np.inf)])


def test_at_and_beside_every_threshold() -> None:
    value_N = np.concatenate([AROUND, -AROUND])
    assert np.array_equal(_signed_bins(value_N), np.searchsorted(SIGNED, value_N, side="left"))
    value_N = np.abs(value_N)
    assert np.array_equal(_thresholds_below(value_N), np.searchsorted(POSITIVE, value_N, side="left"))


@given(st.lists(st.floats(allow_nan=False), min_size=1))
def test_anywhere(values: list[float]) -> None:
    value_N = np.array(values)
    assert np.array_equal(_signed_bins(value_N), np.searchsorted(SIGNED, value_N, side="left"))
