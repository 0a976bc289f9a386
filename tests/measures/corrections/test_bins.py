"""Sums by sequence and bin against selecting the tokens one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mismatchscope.measures.corrections.bins import TokenBins

THRESHOLDS = [-0.5, -0.1, 0.0, 0.1, 0.5]
keys = st.one_of(st.sampled_from(THRESHOLDS), st.floats(-1, 1), st.floats(-0.05, 0.05))


@settings(max_examples=100)
@given(
    st.lists(st.lists(keys, min_size=1, max_size=8), min_size=1, max_size=5),
    st.sets(st.sampled_from(THRESHOLDS)),
    st.sets(st.sampled_from(THRESHOLDS)),
    st.sampled_from(["none", "by sequence", "by token"]),
)
def test_any_band_is_a_sum_over_bins(rows, lows, highs, grouping) -> None:
    key_T = np.array([key for row in rows for key in row])
    length_S = np.array([len(row) for row in rows])
    starts_S = np.cumsum(length_S) - length_S
    sequence_T = np.repeat(np.arange(len(rows)), length_S)
    value_T = np.arange(1.0, len(key_T) + 1)
    group_T = {"none": None, "by sequence": sequence_T % 3, "by token": np.arange(len(key_T)) % 3}[grouping]
    bins = TokenBins(key_T, starts_S, {"value": value_T}, group_T, lows, highs, groups=1 if group_T is None else 3)
    for low in [-np.inf, *lows]:
        for high in [np.inf, *highs]:
            for group in (None, 1):
                chosen_T = (key_T >= low) & (key_T <= high)
                if group is not None and group_T is not None:
                    chosen_T &= group_T == group
                if group is not None and group_T is None:
                    continue
                found_B = bins.within(low, high, group)
                counts = np.bincount(sequence_T[chosen_T], minlength=len(rows))
                sums = np.bincount(sequence_T[chosen_T], value_T[chosen_T], minlength=len(rows))
                np.testing.assert_array_equal(bins.tokens_S(found_B), counts)
                np.testing.assert_allclose(bins.sum_S("value", found_B), sums)


def test_a_huge_value_far_away_takes_no_digit_from_the_others() -> None:
    key_T = np.array([0.0] * 9 + [40.0])
    value_T = np.array([1e-3] * 9 + [1e300])
    bins = TokenBins(key_T, np.array([0]), {"value": value_T}, None, [], [1.0])
    assert bins.sum_S("value", bins.within(high=1.0))[0] == pytest.approx(9e-3, rel=1e-15)


def test_a_value_that_was_not_given_is_unknown() -> None:
    bins = TokenBins(np.zeros(1), np.array([0]), {"value": np.ones(1), "tv": None}, None, [], [])
    assert bins.known_sum_S("tv", bins.within()) is None
