"""Sums by sequence and bin against selecting the tokens one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mismatchscope.measures.corrections.bins import TokenBins
from mismatchscope.measures.corrections.token_tables import TokenColumns, token_bins

THRESHOLDS = [-0.5, -0.1, 0.0, 0.1, 0.5]
keys = st.one_of(st.sampled_from(THRESHOLDS), st.floats(-1, 1), st.floats(-0.05, 0.05))


def bins_of(key_T, offsets_S1, value_T, advantage_T, lows, highs) -> TokenBins:
    """By d, or by log π_θ − log π_old in groups where there are advantages; `value_T` is "tv"."""
    log_ratio_T = key_T if advantage_T is None else np.zeros_like(key_T)
    target_T = None if advantage_T is None else key_T
    columns = TokenColumns(log_ratio_T, target_T, advantage_T, None, {"tv": value_T})
    key = "ratio" if advantage_T is None else "target"
    return token_bins(columns, np.asarray(offsets_S1), {key: (set(lows), set(highs))})[key]


@settings(max_examples=100)
@given(
    st.lists(st.lists(keys, min_size=1, max_size=8), min_size=1, max_size=5),
    st.sets(st.sampled_from(THRESHOLDS)),
    st.sets(st.sampled_from(THRESHOLDS)),
    st.sampled_from(["none", "by sequence", "by token"]),
)
def test_any_band_is_a_sum_over_bins(rows, lows, highs, grouping) -> None:
    key_T = np.array([key for row in rows for key in row])
    sequence_T = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    value_T = np.arange(1.0, len(key_T) + 1)
    group_T = {"none": None, "by sequence": sequence_T % 3, "by token": np.arange(len(key_T)) % 3}[grouping]
    advantage_T = None if group_T is None else np.array([0.0, 2.0, -1.0])[group_T]
    bins = bins_of(key_T, np.cumsum([0, *map(len, rows)]), value_T, advantage_T, lows, highs)
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
                np.testing.assert_allclose(bins.sum_S("tv", found_B), sums)


def test_a_huge_value_far_away_takes_no_digit_from_the_others() -> None:
    key_T = np.array([0.0] * 9 + [40.0])
    value_T = np.array([1e-3] * 9 + [1e300])
    bins = bins_of(key_T, [0, 10], value_T, None, [], [1.0])
    assert bins.sum_S("tv", bins.within(high=1.0))[0] == pytest.approx(9e-3, rel=1e-15)


def test_a_value_that_was_not_given_is_unknown() -> None:
    bins = bins_of(np.zeros(1), [0, 1], np.ones(1), None, [], [])
    assert bins.known_sum_S("kl", bins.within()) is None
    assert bins.known_sum_S("kl_estimate", bins.within()) == 0  # k3 stands for it


def test_blocks_join_whichever_of_their_bins_hold_tokens() -> None:
    key_T, offsets_S1 = np.array([0.0, 0.7, -0.7, 0.2, 0.0]), [0, 1, 2, 4, 5]
    whole = bins_of(key_T, offsets_S1, key_T, None, [-0.1], [0.5])
    parts = [
        bins_of(key_T[2:], [0, 2, 3], key_T[2:], None, [-0.1], [0.5]),
        bins_of(key_T[:2], [0, 1, 2], key_T[:2], None, [-0.1], [0.5]),
    ]
    joined = TokenBins.joined(parts[::-1])
    merged = parts[0].collapsed()
    merged.merge(parts[1].collapsed())
    for bins_B in np.eye(len(whole.within()), dtype=bool):
        for name in ("tokens", "ratio", "tv"):
            np.testing.assert_array_equal(joined.sum_S(name, bins_B), whole.sum_S(name, bins_B))
            assert merged.sum_S(name, bins_B)[0] == pytest.approx(whole.sum_S(name, bins_B).sum())
