from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mismatchscope.errors import EmptyComparisonError, NotComparableError
from mismatchscope.measures.intervals import clustered_mean
from mismatchscope.measures.sketches import sample_quantiles
from mismatchscope.measures.summary import summarise

LEVELS = (0.5, 0.9, 0.99, 0.999)


class TestSampleQuantiles:
    @given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=300), st.floats(0.01, 0.99))
    @settings(max_examples=100, deadline=None)
    def test_is_the_smallest_value_that_covers_the_level(self, values: list[float], level: float) -> None:
        (quantile,) = sample_quantiles(np.array(values), (level,))
        if quantile is None:
            assert len(values) * (1 - level) < 1
        else:
            assert quantile in values
            assert sum(v <= quantile for v in values) >= level * len(values) - 1e-6
            assert sum(v < quantile for v in values) < level * len(values) + 1e-6

    def test_agrees_with_numpy(self) -> None:
        value_N = np.random.default_rng(0).lognormal(size=12_345)
        expected = np.quantile(value_N, LEVELS, method="inverted_cdf")
        assert sample_quantiles(value_N, LEVELS) == tuple(expected)

    @pytest.mark.parametrize(
        ("n", "known"), [(1, 0), (2, 1), (9, 1), (10, 2), (99, 2), (100, 3), (999, 3), (1000, 4)]
    )
    def test_is_unknown_where_n_cannot_resolve_it(self, n: int, known: int) -> None:
        quantiles = sample_quantiles(np.arange(1.0, n + 1), LEVELS)
        assert [q is not None for q in quantiles] == [True] * known + [False] * (4 - known)
        if n == 1000:
            assert quantiles == (500, 900, 990, 999)

    def test_does_not_interpolate_infinities(self) -> None:
        assert sample_quantiles(np.array([1.0, 2.0, math.inf, math.inf]), (0.5, 0.75)) == (2.0, math.inf)


class TestSummarise:
    def test_collects_mean_interval_and_tail(self) -> None:
        value_N = np.random.default_rng(0).beta(0.1, 5, 5000)
        cluster_N = np.repeat(np.arange(50), 100)
        summary = summarise(value_N, cluster_N, estimator="exact", bounds=(0.0, 1.0))
        interval = clustered_mean(value_N, cluster_N, bounds=(0.0, 1.0))
        assert (summary.mean, summary.low, summary.high) == (interval.value, interval.low, interval.high)
        assert (summary.n, summary.clusters, summary.estimator) == (5000, 50, "exact")
        assert summary.p50 <= summary.p90 <= summary.p99 <= summary.p999 <= summary.max == value_N.max()

    def test_leak_shows_as_infinity_where_it_reaches(self) -> None:
        value_N = np.linspace(0, 1, 200)
        value_N[7] = math.inf
        summary = summarise(value_N, np.repeat(np.arange(20), 10), estimator="exact")
        assert (summary.mean, summary.high, summary.max) == (math.inf, math.inf, math.inf)
        assert summary.p99 < 1 and summary.p999 is None

    def test_refuses_nothing_and_nan(self) -> None:
        with pytest.raises(EmptyComparisonError):
            summarise(np.array([]), np.array([], dtype=int), estimator="exact")
        with pytest.raises(NotComparableError):
            summarise(np.array([math.nan, 1.0]), np.array([0, 1]), estimator="exact")
