"""What the charts draw: every value is in it, and nothing that was not seen."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from written_traces import pair_of, pair_with_ratios, sampled_pair, sampled_trace

from mismatchscope.comparison.chart_data import chart_data_of
from mismatchscope.comparison.pair import Pair
from mismatchscope.measures.selected_states import POINTS


def random_pair(
    directory: Path, seed: int, sequences: int = 40, spread: float = 0.1
) -> tuple[Pair, list[np.ndarray]]:
    """Sequences of unlike length that are the same for every seed; and their log-ratios."""
    length_S = np.random.default_rng(99).integers(3, 60, sequences)
    rng = np.random.default_rng(seed)
    log_ratio_ST = [rng.normal(0, spread, length) for length in length_S]
    return pair_with_ratios(directory, [np.exp(log_ratio_T) for log_ratio_T in log_ratio_ST]), log_ratio_ST


def test_the_ratio_histogram_counts_every_token_once(tmp_path: Path) -> None:
    pair, log_ratio_ST = random_pair(tmp_path, 0)
    histogram = chart_data_of(pair, None).ratio_histogram
    ratio_N = np.exp(np.concatenate(log_ratio_ST))
    assert histogram.floor_counts is None and len(histogram.counts) == len(histogram.edges) - 1
    assert sum(histogram.counts) == len(ratio_N)
    # Inner edges alone: the outer ones are the extreme value itself, up to rounding.
    cumulative = [int((ratio_N < edge).sum()) for edge in histogram.edges[1:-1]]
    assert np.cumsum(histogram.counts)[:-1].tolist() == cumulative
    assert histogram.edges[0] * (1 - 1e-12) <= ratio_N.min() and ratio_N.max() <= histogram.edges[-1] * (1 + 1e-12)
    np.testing.assert_allclose(np.array(histogram.edges) * histogram.edges[::-1], 1)  # symmetric about a ratio of 1


def test_a_ratio_of_0_is_counted_in_the_first_bin(tmp_path: Path) -> None:
    mu = [np.full(4, -1.0)] * 2
    figures = chart_data_of(
        sampled_pair(tmp_path, mu, [[-1.0, -np.inf, -1.5, -1.0], [-1.0, -0.9, -1.0, -1.0]]), None
    )
    assert sum(figures.ratio_histogram.counts) == 8
    assert figures.ratio_histogram.counts[0] == 2  # that one, and e^-0.5, which is the widest finite one
    assert np.isfinite(figures.ratio_histogram.edges).all()
    # The response with it has no finite log-ratio, so it is not drawn; it is counted.
    assert (figures.log_ratio_by_length.n_total, figures.log_ratio_by_length.x) == (2, [4])
    assert figures.log_ratio_by_length.y == pytest.approx([0.1])
    json.dumps(asdict(figures), allow_nan=False)


def test_where_no_ratio_is_finite_there_is_no_histogram(tmp_path: Path) -> None:
    figures = chart_data_of(sampled_pair(tmp_path, [np.full(4, -1.0)] * 2, [np.full(4, -np.inf)] * 2), None)
    assert figures.ratio_histogram is None and figures.log_ratio_by_length is None


def test_equal_sides_still_have_bins_that_rise(tmp_path: Path) -> None:
    histogram = chart_data_of(pair_with_ratios(tmp_path, [np.ones(3)] * 2), None).ratio_histogram
    assert (np.diff(histogram.edges) > 0).all() and sum(histogram.counts) == 6


def test_rows_without_a_log_prob_are_in_no_chart(tmp_path: Path) -> None:
    mu = sampled_trace(tmp_path / "mu", [np.full(4, -1.0)] * 2)
    pi = sampled_trace(tmp_path / "pi", [[-1.0, np.nan, -1.2, -1.0], [-1.1, -1.0, -1.0, -1.0]], role="reference")
    figures = chart_data_of(pair_of(mu, pi), None)
    assert sum(figures.ratio_histogram.counts) == figures.probability_scatter.n_total == 7
    assert sum(place.n for place in figures.tv_by_position) == 7


def test_position_bins_hold_every_state_and_its_tv(tmp_path: Path) -> None:
    pair, log_ratio_ST = random_pair(tmp_path, 0)
    position_N = np.concatenate([np.arange(len(each)) for each in log_ratio_ST])
    tv_N = np.exp(-9.0) * np.abs(np.expm1(np.concatenate(log_ratio_ST)))
    bins = chart_data_of(pair, None).tv_by_position
    assert bins[0].low == 0 and bins[-1].high == position_N.max()
    assert all(after.low == before.high + 1 for before, after in pairwise(bins))
    assert sum(place.n for place in bins) == len(tv_N)
    for place in bins:
        here_N = tv_N[(position_N >= place.low) & (position_N <= place.high)]
        assert (place.n, place.floor_mean) == (len(here_N), None)
        assert (place.mean, place.max) == pytest.approx((here_N.mean(), here_N.max()), rel=1e-9)


def test_few_points_are_all_drawn(tmp_path: Path) -> None:
    log_ratio_ST = [np.array([0.1, -0.2]), np.array([0.3, 0.0, 0.1])]
    figures = chart_data_of(pair_with_ratios(tmp_path, [np.exp(each) for each in log_ratio_ST]), None)
    assert figures.probability_scatter.x == pytest.approx([np.exp(-9.0)] * 5)
    assert figures.probability_scatter.y == pytest.approx(np.exp(-9.0 + np.concatenate(log_ratio_ST)))
    assert figures.log_ratio_by_length.x == [2, 3]
    assert figures.log_ratio_by_length.y == pytest.approx([each.sum() for each in log_ratio_ST])


def test_many_points_are_a_sample_of_what_was_seen_and_always_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    log_ratio_S = rng.normal(0, 0.1, POINTS + 200)
    pair = pair_with_ratios(tmp_path, [[np.exp(each)] for each in log_ratio_S])
    figures = chart_data_of(pair, None)
    for scatter, values in (
        (figures.probability_scatter, np.exp(-9.0 + log_ratio_S)),
        (figures.log_ratio_by_length, log_ratio_S),
    ):
        assert (len(scatter.y), scatter.n_total) == (POINTS, POINTS + 200)
        nearest = np.abs(np.subtract.outer(scatter.y, values)).argmin(axis=1)
        assert len(set(nearest.tolist())) == POINTS
        np.testing.assert_allclose(values[nearest], scatter.y, rtol=1e-9)
    assert chart_data_of(pair, None) == figures


def test_a_floor_is_drawn_on_the_same_axes(tmp_path: Path) -> None:
    pair, _ = random_pair(tmp_path / "pair", 0)
    floor, noise_ST = random_pair(tmp_path / "floor", 1, spread=0.01)
    figures = chart_data_of(pair, floor)
    noise_N = np.concatenate(noise_ST)
    position_N = np.concatenate([np.arange(len(each)) for each in noise_ST])
    tv_N = np.exp(-9.0) * np.abs(np.expm1(noise_N))
    assert sum(figures.ratio_histogram.floor_counts) == len(noise_N)
    assert figures.ratio_histogram.edges == chart_data_of(pair, None).ratio_histogram.edges
    for place in figures.tv_by_position:
        here_N = (position_N >= place.low) & (position_N <= place.high)
        assert place.floor_mean == pytest.approx(tv_N[here_N].mean(), rel=1e-9)
    assert figures.log_ratio_by_length.floor_y == pytest.approx([each.sum() for each in noise_ST])
    assert len(figures.probability_scatter.floor_y) == len(figures.probability_scatter.y)
    for point in figures.floor_exceedance:
        assert point.tokens_lower == pytest.approx((tv_N > point.tau).mean())
        assert (point.tokens, point.tokens_upper) == (None, None)  # of sampled tokens nothing is known from above


def test_a_wider_floor_falls_into_the_end_bins(tmp_path: Path) -> None:
    pair, _ = random_pair(tmp_path / "pair", 0, spread=0.01)
    floor, noise_ST = random_pair(tmp_path / "floor", 1, spread=1.0)
    histogram = chart_data_of(pair, floor).ratio_histogram
    assert sum(histogram.floor_counts) == sum(len(each) for each in noise_ST)


def test_a_floor_of_other_sequences_is_not_drawn_point_by_point(tmp_path: Path) -> None:
    pair, _ = random_pair(tmp_path / "pair", 0)
    floor, _ = random_pair(tmp_path / "floor", 1, sequences=39)
    figures = chart_data_of(pair, floor)
    assert figures.probability_scatter.floor_y is None and figures.log_ratio_by_length.floor_y is None


def test_without_a_floor_none_is_drawn(tmp_path: Path) -> None:
    figures = chart_data_of(random_pair(tmp_path, 0)[0], None)
    assert figures.floor_exceedance == ()
    assert figures.probability_scatter.floor_y is None and figures.log_ratio_by_length.floor_y is None
