"""Intervals against independent formulas, their invariances, and how often they hold."""

from __future__ import annotations

import importlib
import itertools
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from mismatchscope.errors import EmptyComparisonError, NotComparableError
from mismatchscope.measures.intervals import (
    cluster_index,
    clustered_mean,
    empirical_bernstein,
    proportion_interval,
    ratio_interval,
    required_clusters,
    unseen_share,
)


def skewed_audit(prompts: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    length_C = rng.integers(1, 40, prompts)
    cluster_N = np.repeat(np.arange(prompts), length_C)
    return rng.beta(0.2, 5, cluster_N.size) * np.repeat(rng.gamma(0.5, 1, prompts), length_C), cluster_N


def jackknife_error(value_N: np.ndarray, cluster_N: np.ndarray) -> float:
    labels = sorted(set(cluster_N.tolist()))
    left_out = [math.fsum(value_N[cluster_N != c]) / int((cluster_N != c).sum()) for c in labels]
    centre = math.fsum(left_out) / len(labels)
    return math.sqrt((len(labels) - 1) / len(labels) * math.fsum((x - centre) ** 2 for x in left_out))


class TestClusterIndex:
    @pytest.mark.parametrize("labels", [[5, 5, 3, 9, 3], [-2, -2, -5, 10**12, -5], ["b", "b", "a", "c", "a"]])
    def test_renumbers_any_labels_in_their_order(self, labels: list) -> None:
        assert cluster_index(np.array(labels)).tolist() == [1, 1, 0, 2, 0]


class TestClusteredMean:
    def test_mean_is_pooled_over_tokens(self) -> None:
        value_N, cluster_N = skewed_audit(50)
        interval = clustered_mean(value_N, cluster_N)
        assert interval.value == pytest.approx(math.fsum(value_N) / value_N.size, rel=1e-14)
        assert (interval.n, interval.clusters, interval.confidence) == (value_N.size, 50, 0.95)

    def test_short_side_is_the_jackknife_t_interval(self) -> None:
        value_N, cluster_N = skewed_audit(50)
        interval = clustered_mean(value_N, cluster_N, confidence=0.9)
        count_C = np.bincount(cluster_N)
        effective = count_C.sum() ** 2 / (count_C**2).sum()
        t = stats.t.ppf(0.95, effective - 1)
        assert interval.value - interval.low == pytest.approx(t * jackknife_error(value_N, cluster_N), rel=1e-10)

    def test_long_side_solves_halls_cubic(self) -> None:
        rng = np.random.default_rng(3)
        sum_C = rng.gamma(8.0, 1.0, 400)  # skewed little enough for the cubic to be monotone
        interval = ratio_interval(sum_C, np.ones(400))
        t = stats.t.ppf(0.975, 399)
        reach = -(interval.high - interval.value) / (sum_C.std(ddof=1) / math.sqrt(400))
        g = stats.skew(sum_C, bias=False) / math.sqrt(400) * (1 + 4 / math.sqrt(400))
        assert reach + g * reach**2 / 3 + g**2 * reach**3 / 27 + g / 6 == pytest.approx(-t, rel=1e-9)
        assert -reach > t

    def test_symmetric_values_give_a_symmetric_interval(self) -> None:
        sum_C = np.array([-3.0, -1.0, 0.0, 1.0, 3.0])
        interval = ratio_interval(sum_C, np.ones(5))
        assert interval.high == pytest.approx(-interval.low)
        assert interval.high == pytest.approx(stats.t.ppf(0.975, 4) * sum_C.std(ddof=1) / math.sqrt(5))

    def test_tokens_of_one_prompt_are_no_new_evidence(self) -> None:
        value_N, cluster_N = skewed_audit(30)
        once, thrice = (clustered_mean(np.repeat(value_N, k), np.repeat(cluster_N, k)) for k in (1, 3))
        assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high), rel=1e-10)

    def test_bounds_cut_the_interval_and_not_the_value(self) -> None:
        value_N = np.array([0.0] * 9 + [1.0])
        free = clustered_mean(value_N, np.arange(10))
        cut = clustered_mean(value_N, np.arange(10), bounds=(0.0, 0.5))
        assert free.low < 0 and free.high > 0.5
        assert (cut.low, cut.value, cut.high) == (0.0, 0.1, 0.5)

    @given(st.integers(0, 10**6), st.integers(3, 40), st.floats(-5, 5), st.sampled_from([1e-9, 0.3, -2.0]))
    @settings(max_examples=60, deadline=None)
    def test_follows_shift_scale_and_relabelling(self, seed: int, prompts: int, shift: float, scale: float) -> None:
        value_N, cluster_N = skewed_audit(prompts, seed)
        base = clustered_mean(value_N, cluster_N)
        assume(base.low is not None and base.high > base.low)
        assert base.low <= base.value <= base.high

        order = np.random.default_rng(seed).permutation(value_N.size)
        relabelled = 7 * cluster_N[order] - 3  # keeps the order of the clusters, not of the tokens
        moved = clustered_mean(scale * (value_N[order] + shift), relabelled)
        expected = sorted(scale * (end + shift) for end in (base.low, base.high))
        tolerance = 1e-9 * abs(scale) * (1 + abs(shift))
        assert [moved.low, moved.high] == pytest.approx(expected, rel=1e-7, abs=tolerance)

    @given(st.integers(0, 10**6))
    @settings(max_examples=20, deadline=None)
    def test_more_confidence_is_wider(self, seed: int) -> None:
        value_N, cluster_N = skewed_audit(20, seed)
        ends = [clustered_mean(value_N, cluster_N, confidence=c) for c in (0.5, 0.9, 0.95, 0.99)]
        assert all(a.low >= b.low and a.high <= b.high for a, b in itertools.pairwise(ends))

    def test_infinite_value_makes_the_whole_interval_infinite(self) -> None:
        interval = clustered_mean(np.array([0.1, math.inf, 0.2]), np.array([0, 0, 1]))
        assert (interval.value, interval.low, interval.high, interval.method) == (*[math.inf] * 3, "infinite")

    @pytest.mark.parametrize(("value", "method"), [(0.0, "all-zero"), (0.25, "constant")])
    def test_identical_values_say_so(self, value: float, method: str) -> None:
        interval = clustered_mean(np.full(6, value), np.array([0, 0, 1, 1, 2, 2]))
        assert (interval.low, interval.value, interval.high, interval.method) == (value, value, value, method)

    def test_one_prompt_has_no_interval(self) -> None:
        for values in ([0.1, 0.2], [0.1, 0.1]):
            interval = clustered_mean(np.array(values), np.array([4, 4]))
            assert (interval.low, interval.high, interval.method) == (None, None, "too-few-clusters")

    def test_prompts_that_do_not_differ_have_no_interval(self) -> None:
        interval = clustered_mean(np.array([0.1, 0.3] * 3), np.repeat([0, 1, 2], 2))
        assert interval.value == pytest.approx(0.2)
        assert (interval.low, interval.high, interval.method) == (None, None, "no-between-cluster-variance")

    def test_rejects_what_has_no_mean(self) -> None:
        with pytest.raises(NotComparableError, match="1 of 2 values are NaN"):
            clustered_mean(np.array([0.1, math.nan]), np.array([0, 1]))
        with pytest.raises(NotComparableError, match=r"\+inf and -inf"):
            clustered_mean(np.array([math.inf, -math.inf]), np.array([0, 1]))
        with pytest.raises(EmptyComparisonError):
            clustered_mean(np.array([]), np.array([], dtype=int))
        with pytest.raises(ValueError, match="differ in shape"):
            clustered_mean(np.ones(3), np.zeros(2, dtype=int))
        with pytest.raises(ValueError, match="confidence"):
            clustered_mean(np.ones(3), np.arange(3), confidence=95)


def test_infinity_minus_infinity_is_no_difference() -> None:
    with pytest.raises(NotComparableError), np.errstate(invalid="ignore"):
        clustered_mean(np.array([math.inf, 1.0]) - np.array([math.inf, 0.5]), np.array([0, 1]))


class TestEmpiricalBernstein:
    def test_is_maurer_and_pontils_theorem_4(self) -> None:
        mean_C = np.random.default_rng(0).beta(1, 9, 500)
        n, m = 500, math.fsum(mean_C) / 500
        variance = math.fsum((a - b) ** 2 for a in mean_C for b in mean_C) / (2 * n * (n - 1))
        margin = math.sqrt(2 * variance * math.log(2 / 0.05) / n) + 7 * math.log(2 / 0.05) / (3 * (n - 1))
        upper = empirical_bernstein(mean_C, side="upper")
        assert (upper.low, upper.high) == (0.0, pytest.approx(m + margin, rel=1e-12))
        both = empirical_bernstein(mean_C)
        assert both.high > upper.high and both.value - both.low == pytest.approx(both.high - both.value)
        assert empirical_bernstein(mean_C, side="lower").high == 1.0

    def test_all_zero_still_leaves_room(self) -> None:
        assert empirical_bernstein(np.zeros(100), side="upper").high == pytest.approx(7 * math.log(40) / (3 * 99))

    def test_needs_values_between_zero_and_one(self) -> None:
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            empirical_bernstein(np.array([0.2, 1.5]))
        assert empirical_bernstein(np.array([0.2])).high is None


class TestProportionInterval:
    @given(st.integers(1, 60), st.data())
    @settings(max_examples=60, deadline=None)
    def test_ends_leave_the_nominal_tail_of_the_binomial(self, n: int, data: st.DataObject) -> None:
        k = data.draw(st.integers(0, n))
        interval = proportion_interval(k, n, confidence=0.9)

        def at_most(k: int, p: float) -> float:
            return math.fsum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1))

        if k < n:
            assert at_most(k, interval.high) == pytest.approx(0.05, rel=1e-8)
        if k > 0:
            assert 1 - at_most(k - 1, interval.low) == pytest.approx(0.05, rel=1e-8)
        assert interval.low <= k / n <= interval.high

    def test_no_exceedance_gives_the_rule_of_three(self) -> None:
        upper = proportion_interval(0, 300, side="upper")
        assert (upper.low, upper.high) == (0.0, pytest.approx(1 - 0.05 ** (1 / 300), rel=1e-12))
        assert proportion_interval(300, 300, side="lower").low == pytest.approx(0.05 ** (1 / 300), rel=1e-12)

    def test_rejects_impossible_counts(self) -> None:
        with pytest.raises(EmptyComparisonError):
            proportion_interval(0, 0)
        with pytest.raises(ValueError, match="k=4, n=3"):
            proportion_interval(4, 3)


class TestUnseenShare:
    @given(st.integers(1, 5000), st.floats(0.5, 0.999))
    def test_is_the_limit_of_what_no_prompt_showed(self, n: int, confidence: float) -> None:
        limit = proportion_interval(0, n, confidence=confidence, side="upper").high
        assert unseen_share(n, confidence) == pytest.approx(limit, rel=1e-9)

    def test_is_about_three_over_n(self) -> None:
        assert [round(unseen_share(n), 4) for n in (8, 32, 64, 300)] == [0.3123, 0.0894, 0.0457, 0.0099]
        with pytest.raises(EmptyComparisonError):
            unseen_share(0)


class TestRequiredClusters:
    def test_published_values(self) -> None:
        assert [required_clusters(q) for q in (0.95, 0.99, 0.999)] == [59, 299, 2995]

    @given(st.floats(0.05, 0.9999), st.floats(0.5, 0.999))
    def test_is_the_smallest_n(self, q: float, confidence: float) -> None:
        n = required_clusters(q, confidence)
        assert 1 - q**n >= confidence - 1e-9
        assert n == 1 or 1 - q ** (n - 1) < confidence + 1e-9

    def test_rejects_certainty(self) -> None:
        with pytest.raises(ValueError, match="strictly between"):
            required_clusters(1.0)


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("calibration")


def assert_mean_calibrated(row) -> None:
    assert row.mean >= 0.93, row
    assert row.mean_upper >= 0.95 - 2.5 * math.sqrt(0.95 * 0.05 / row.audits), row


def assert_calibrated(row) -> None:
    noise = 2.5 * math.sqrt(0.95 * 0.05 / row.audits)
    for name in (
        "prompt_mean",
        "prompts_beyond",
        "tokens_beyond_2",
        "tokens_beyond_5",
        "tokens_beyond_15",
        "tokens_beyond_50",
        "tolerance_90",
        "tolerance_95",
    ):
        rate = getattr(row, name)
        assert rate is None or rate >= 0.95 - noise, (name, row)


class TestCalibration:
    """The committed table, of a thousand audits a row, is benchmarks/results/calibration.md."""

    def test_clustered_skewed_states(self, benchmark: ModuleType) -> None:
        design = next(d for d in benchmark.DESIGNS if d.name == "moderate")
        row = benchmark.calibrate(design, 64, 400, seed=20, peers=False)
        assert_calibrated(row)
        assert_mean_calibrated(row)

    @pytest.mark.parametrize("name", ["Pareto", "rare huge", "very heavy"])
    def test_what_holds_for_any_distribution_holds_for_few_prompts(self, benchmark: ModuleType, name: str) -> None:
        design = next(d for d in benchmark.DESIGNS if d.name == name)
        assert_calibrated(benchmark.calibrate(design, 8, 200, seed=22, peers=False))

    @pytest.mark.slow
    def test_every_design(self, benchmark: ModuleType) -> None:
        for design in benchmark.DESIGNS:
            for prompts in benchmark.PROMPTS:
                row = benchmark.calibrate(design, prompts, 1000, seed=21, peers=False)
                assert_calibrated(row)
                if prompts >= 32 and design.name != "rare huge":  # no interval holds where the sample has no sign
                    assert_mean_calibrated(row)


@pytest.mark.filterwarnings("error")
def test_values_near_the_end_of_float64_leave_the_mean_unbounded() -> None:
    """exp |log ρ| of a token that one side all but excludes is as large as that."""
    interval = ratio_interval(np.array([1e304, 1.0, 2.0, 3.0]), np.full(4, 10.0), bounds=(0.0, math.inf))
    assert (interval.value, interval.low, interval.high) == (2.5e302, 0.0, math.inf)
