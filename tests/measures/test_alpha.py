from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mismatchscope.errors import EmptyComparisonError, NotComparableError
from mismatchscope.measures.accumulators import ClusterSums
from mismatchscope.measures.alpha import (
    NO_UPPER_ENDS,
    TAUS,
    TotalVariation,
    alpha_of,
    check_ends,
    exceedance_curve,
    tolerance_bound,
)
from mismatchscope.measures.intervals import clustered_mean, empirical_bernstein, proportion_interval
from mismatchscope.measures.results import Alpha, Exceedance


def topk_audit(prompts: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    cluster_N = np.repeat(rng.permutation(prompts), rng.integers(1, 30, prompts))
    lower_N = rng.beta(0.1, 5, cluster_N.size)
    return lower_N, np.minimum(1, lower_N + 0.01 * rng.random(cluster_N.size)), cluster_N


def alpha1(
    lower_N: np.ndarray, upper_N: np.ndarray | None, cluster_N: np.ndarray, unbiased_N: np.ndarray | None = None
) -> Alpha:
    """α from whole arrays."""
    check_ends(lower_N, upper_N)
    return alpha_of(
        TotalVariation.of(lower_N, cluster_N),
        None if upper_N is None else TotalVariation.of(upper_N, cluster_N),
        mean_of=None if unbiased_N is None else ClusterSums.of(unbiased_N, cluster_N),
    )


def curve(
    lower_N: np.ndarray, upper_N: np.ndarray | None, cluster_N: np.ndarray, taus: tuple[float, ...] = TAUS
) -> tuple[Exceedance, ...]:
    return exceedance_curve(
        TotalVariation.of(lower_N, cluster_N, taus),
        None if upper_N is None else TotalVariation.of(upper_N, cluster_N, taus),
    )


class TestAlpha1:
    def test_topk_keeps_both_ends_apart(self) -> None:
        lower_N, upper_N, cluster_N = topk_audit(120)
        found = alpha1(lower_N, upper_N, cluster_N)
        assert (found.observed_max, found.observed_upper) == (lower_N.max(), upper_N.max())
        lower, upper = (clustered_mean(x, cluster_N, bounds=(0.0, 1.0)) for x in (lower_N, upper_N))
        ends = (lower.value, lower.low, upper.high)
        assert (found.mean.value, found.mean.low, found.mean.high) == pytest.approx(ends, rel=1e-12)

    def test_tolerance_is_about_upper_ends(self) -> None:
        lower_N, upper_N, cluster_N = topk_audit(120)
        tolerance = alpha1(lower_N, upper_N, cluster_N).tolerance
        assert [t.value is None for t in tolerance] == [False, False, False, True, True]
        assert all(t.value is None or t.value in upper_N for t in tolerance)
        assert [t.n_needed for t in tolerance] == [5, 29, 59, 299, 2995]
        assert {t.reason for t in tolerance} == {None}  # more prompts would do

    def test_lower_ends_bound_nothing_from_above(self) -> None:
        lower_N, _, cluster_N = topk_audit(120)
        found = alpha1(lower_N, None, cluster_N)
        assert found.observed_upper is None
        assert found.mean.low is not None and found.mean.high is None
        assert found.prompt_mean.low is not None
        assert (found.prompt_mean.value, found.prompt_mean.high) == (None, None)
        assert {(t.value, t.reason) for t in found.tolerance} == {(None, NO_UPPER_ENDS)}
        assert [t.n_needed for t in found.tolerance] == [5, 29, 59, 299, 2995]
        for point in found.exceedance:
            assert (point.tokens, point.tokens_upper, point.prompts, point.prompts_upper) == (None,) * 4
            assert point.tokens_lower == pytest.approx(np.mean(lower_N > point.tau))

    def test_unbiased_values_give_the_mean_of_sampled_evidence(self) -> None:
        lower_N, _, cluster_N = topk_audit(120)
        shortfall_N = np.where(np.arange(lower_N.size) % 2, 0.0, np.minimum(1, 2 * lower_N))
        found = alpha1(lower_N, None, cluster_N, unbiased_N=shortfall_N)
        expected = clustered_mean(shortfall_N, cluster_N, bounds=(0.0, 1.0))
        assert (found.mean.method, found.mean.n) == (expected.method, expected.n)
        for end in ("value", "low", "high"):
            assert getattr(found.mean, end) == pytest.approx(getattr(expected, end), rel=1e-12)
        assert found.observed_upper is None
        assert found.prompt_mean.low < found.prompt_mean.value < found.prompt_mean.high

    def test_the_mean_over_prompts_is_bounded_under_its_own_name(self) -> None:
        """One long prompt is far off: the token mean is above any bound of the mean over prompts."""
        tv_N, cluster_N = (
            np.r_[np.zeros(990), np.full(10_000, 0.9)],
            np.r_[np.repeat(np.arange(99), 10), [99] * 10_000],
        )
        found = alpha1(tv_N, tv_N, cluster_N)
        expected = empirical_bernstein(np.r_[np.zeros(99), 0.9])
        by_prompt = found.prompt_mean
        assert (by_prompt.value, by_prompt.low, by_prompt.high) == pytest.approx(
            (expected.value, expected.low, expected.high), rel=1e-9
        )
        assert by_prompt.value < by_prompt.high < found.mean.value

    def test_topk_bounds_the_mean_over_prompts_by_its_ends(self) -> None:
        lower_N, upper_N, cluster_N = topk_audit(40)
        found = alpha1(lower_N, upper_N, cluster_N).prompt_mean
        mean_EC = np.array([[x_N[cluster_N == c].mean() for c in range(40)] for x_N in (lower_N, upper_N)])
        low, high = (empirical_bernstein(mean_C) for mean_C in mean_EC)
        assert (found.value, found.low) == (None, low.low) and found.high == pytest.approx(high.high, rel=1e-12)

    def test_exact_evidence_with_no_mismatch_at_all(self) -> None:
        zero_N = np.zeros(100)
        found = alpha1(zero_N, zero_N, np.repeat(np.arange(10), 10))
        assert (found.observed_max, found.observed_upper, found.mean.method) == (0.0, 0.0, "all-zero")
        assert found.exceedance[0].prompts == 0
        assert found.unseen_share == pytest.approx(1 - 0.05 ** (1 / 10))
        assert found.exceedance[0].prompts_upper == pytest.approx(1 - 0.05 ** (1 / 10))

    @pytest.mark.parametrize(
        ("lower", "upper", "message"),
        [
            ([0.1, math.nan], None, "NaN"),
            ([0.1, 1.2], None, "lies in"),
            ([-0.1, 0.2], None, "lies in"),
            ([0.1, 0.3], [0.2, 0.2], "above its upper end"),
        ],
    )
    def test_refuses_what_is_no_total_variation(self, lower: list, upper: list | None, message: str) -> None:
        with pytest.raises(NotComparableError, match=message):
            alpha1(np.array(lower), None if upper is None else np.array(upper), np.array([0, 1]))

    def test_refuses_an_empty_comparison(self) -> None:
        with pytest.raises(EmptyComparisonError):
            alpha1(np.array([]), None, np.array([], dtype=int))


class TestToleranceBound:
    @given(st.integers(1, 150), st.sampled_from([0.5, 0.9, 0.95]), st.sampled_from([0.9, 0.95, 0.99]))
    @settings(max_examples=60, deadline=None)
    def test_is_the_lowest_order_statistic_with_the_confidence(self, n: int, q: float, confidence: float) -> None:
        def level(r: int) -> float:  # P(at most r-1 of n prompts lie in the lower fraction q)
            return math.fsum(math.comb(n, i) * q**i * (1 - q) ** (n - i) for i in range(r))

        enough = [r for r in range(1, n + 1) if level(r) >= confidence]
        bound = tolerance_bound(np.random.default_rng(n).permutation(n) + 1.0, q, confidence=confidence)
        assert bound.value == (enough[0] if enough else None)
        assert (n >= bound.n_needed) == bool(enough)


class TestExceedanceCurve:
    def test_counts_tokens_and_prompts(self) -> None:
        lower_N, upper_N, cluster_N = topk_audit(60)
        for point in curve(lower_N, upper_N, cluster_N):
            assert point.tokens_lower == pytest.approx(np.mean(lower_N > point.tau))
            assert point.prompts_lower == np.mean([lower_N[cluster_N == c].max() > point.tau for c in range(60)])
            k = sum(upper_N[cluster_N == c].max() > point.tau for c in range(60))
            assert point.prompts_upper == proportion_interval(k, 60, side="upper").high
            assert point.tokens_lower <= np.mean(upper_N > point.tau) <= point.tokens_upper <= 1
            known = np.array_equal(lower_N > point.tau, upper_N > point.tau)
            assert point.tokens == (point.tokens_lower if known else None)
        exact = curve(lower_N, lower_N, cluster_N)
        assert all((p.tokens, p.prompts) == (p.tokens_lower, p.prompts_lower) for p in exact)

    def test_grid_does_not_depend_on_the_data(self) -> None:
        lower_N, _, cluster_N = topk_audit(10)
        assert tuple(p.tau for p in alpha1(lower_N, None, cluster_N).exceedance) == TAUS
        assert TAUS[:4] == (1e-6, 2e-6, 5e-6, 1e-5) and TAUS[-1] == 0.5

    def test_unseen_exceedance_is_not_impossible(self) -> None:
        lower_N, upper_N, cluster_N = topk_audit(60)
        (point,) = curve(lower_N / 2, upper_N / 2, cluster_N, taus=(0.9,))
        assert (point.tokens, point.prompts) == (0, 0)
        assert point.prompts_upper == pytest.approx(1 - 0.05 ** (1 / 60))
        assert point.tokens_upper > point.prompts_upper  # a prompt that exceeds may be a long one

    def test_every_token_beyond(self) -> None:
        (point,) = curve(np.full(6, 0.5), np.full(6, 0.5), np.repeat([0, 1, 2], 2), taus=(0.1,))
        assert (point.tokens, point.tokens_upper, point.prompts, point.prompts_upper) == (1, 1, 1, 1)


def test_the_largest_value_of_every_cluster() -> None:
    tv = TotalVariation.of(np.array([0.2, 0.9, 0.1, 0.3]), np.array([7, 3, 7, 3]))
    assert sorted(tv.exceedance.seen()[0].tolist()) == [0.2, 0.9]
