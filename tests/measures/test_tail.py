from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mismatchscope.errors import EmptyComparisonError, NotComparableError
from mismatchscope.measures.tail import pareto_k, tail_extrapolation

pytestmark = pytest.mark.slow


def uniform_grid(n: int) -> np.ndarray:
    return (np.arange(n) + 0.5) / n


class TestParetoK:
    # k̂ of arviz 0.23.4, psislw(log_weights), on the same deterministic inputs.
    @pytest.mark.parametrize(
        ("shape", "n", "arviz_k"),
        [
            (0.1, 25, 0.40046500169623006),
            (0.9, 25, 0.6042117338168264),
            (0.5, 60, 0.48780615591645266),
            (0.1, 100, 0.2616525575709871),
            (0.9, 100, 0.720596743489738),
            (1.5, 225, 1.2522789893140633),
            (0.5, 1000, 0.4970859612625137),
            (0.9, 1000, 0.8442664334030595),
            (0.1, 20000, 0.11203541107177309),
            (1.5, 20000, 1.466899262561201),
        ],
    )
    def test_pareto_weights_agree_with_arviz(self, shape: float, n: int, arviz_k: float) -> None:
        assert pareto_k(-shape * np.log(uniform_grid(n))) == pytest.approx(arviz_k, rel=1e-10)

    @pytest.mark.parametrize(
        ("n", "arviz_k"),
        [(60, -0.036885978645225095), (225, -1.0904446118152278), (1000, -1.6429502374956841)],
    )
    def test_bounded_weights_agree_with_arviz(self, n: int, arviz_k: float) -> None:
        assert pareto_k(2 * np.sin(7.0 * np.arange(n) ** 1.1)) == pytest.approx(arviz_k, rel=1e-9)

    @given(st.integers(0, 10**6), st.floats(-600, 600))
    @settings(max_examples=30, deadline=None)
    def test_does_not_depend_on_normalisation_or_order(self, seed: int, shift: float) -> None:
        rng = np.random.default_rng(seed)
        log_weight_N = rng.standard_t(4, 300)
        shifted = pareto_k(rng.permutation(log_weight_N) + shift)
        assert shifted == pytest.approx(pareto_k(log_weight_N), rel=1e-6, abs=1e-8)

    def test_no_tail_is_unknown_and_not_light(self) -> None:
        assert pareto_k(np.zeros(1000)) is None
        assert pareto_k(np.random.default_rng(0).normal(size=24)) is None
        assert pareto_k(np.full(100, -math.inf)) is None
        assert pareto_k(np.r_[np.zeros(996), np.arange(1.0, 5.0)]) is None  # four weights above the rest

    def test_a_few_weights_that_carry_everything(self) -> None:
        assert pareto_k(np.r_[np.full(997, -math.inf), 0.0, -1.0, -2.0]) == math.inf
        assert pareto_k(np.r_[np.linspace(-900, -800, 999), 0.0]) == math.inf

    def test_zero_weights_among_others_are_fine(self) -> None:
        log_weight_N = -0.5 * np.log(uniform_grid(400))
        log_weight_N[300:] = -math.inf
        assert math.isfinite(pareto_k(log_weight_N))

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_refuses_weights_that_are_none(self, bad: float) -> None:
        with pytest.raises(NotComparableError):
            pareto_k(np.r_[np.zeros(50), bad])


class TestTailExtrapolation:
    def test_is_the_maximum_likelihood_fit(self) -> None:
        max_C = stats.genpareto.ppf(uniform_grid(2000), 0.2, scale=0.01)
        tail = tail_extrapolation(max_C)
        excess_M = max_C[max_C > tail.threshold] - tail.threshold
        shape, _, scale = stats.genpareto.fit(excess_M, floc=0)
        assert tail.exceedances == excess_M.size == 400
        assert tail.shape == pytest.approx(shape, abs=0.01)
        assert tail.scale == pytest.approx(scale, rel=0.01)
        assert tail.value == pytest.approx(stats.genpareto.ppf(0.999, 0.2, scale=0.01), rel=0.05)

    def test_interval_is_the_profile_likelihoods(self) -> None:
        max_C = stats.genpareto.rvs(0.2, scale=0.01, size=600, random_state=4)
        tail = tail_extrapolation(max_C, quantile=0.99, confidence=0.9)
        excess_M = max_C[max_C > tail.threshold] - tail.threshold
        odds = (excess_M.size / 600) / (1 - 0.99)

        def profile(value: float) -> float:  # best log-likelihood with the quantile held at `value`
            shape_K = np.linspace(-0.5, 1.5, 4001) + 1e-9
            scale_K = (value - tail.threshold) * shape_K / np.expm1(shape_K * math.log(odds))
            return max(
                stats.genpareto.logpdf(excess_M, k, scale=s).sum()
                for k, s in zip(shape_K[::20], scale_K[::20], strict=True)
            )

        drop = stats.chi2.ppf(0.9, 2) / 2
        assert profile(tail.value) - profile(tail.high) == pytest.approx(drop, abs=0.1)

    @given(st.integers(120, 3000), st.sampled_from([0.9, 0.95, 0.99]))
    @settings(max_examples=30, deadline=None)
    def test_the_lower_end_is_the_highest_order_statistic_that_is_low_enough(
        self, n: int, confidence: float
    ) -> None:
        max_C = (np.random.default_rng(n).permutation(n) + 1.0) / n
        above = n - round(tail_extrapolation(max_C, confidence=confidence).low * n)  # M_(n - above) is `low`
        allowed = (1 - confidence) / 2
        assert stats.binom.sf(above, n, 0.001) <= allowed * (1 + 1e-9)
        assert above == 0 or stats.binom.sf(above - 1, n, 0.001) > allowed

    @pytest.mark.parametrize(
        "population",
        [
            stats.uniform(0, 0.5),
            stats.uniform(0, 1),
            stats.beta(5, 1),
            stats.beta(2, 5),
            stats.truncpareto(0.7, 100, scale=0.01),  # ends at 1
            stats.genpareto(0.1, scale=0.02),
        ],
        ids=["uniform to a half", "uniform", "steep end", "soft end", "Pareto cut at 1", "Pareto"],
    )
    def test_holds_its_level_for_bounded_tails_too(self, population) -> None:
        rng = np.random.default_rng(5)
        truth = population.ppf(0.999)
        audits = [tail_extrapolation(population.rvs(600, random_state=rng)) for _ in range(100)]
        assert sum(a.low <= truth <= a.high for a in audits) >= 89

    def test_says_what_it_rests_on_and_stays_below_one(self) -> None:
        max_C = np.minimum(1, stats.genpareto.ppf(uniform_grid(120), 0.9, scale=0.1))
        tail = tail_extrapolation(max_C, quantile=0.9999)
        assert tail.exceedances == int((max_C > tail.threshold).sum())
        assert tail.low <= tail.value <= tail.high <= 1

    def test_too_few_exceedances_extrapolate_nothing(self) -> None:
        few = tail_extrapolation(np.linspace(0, 0.5, 99))
        assert (few.value, few.low, few.high) == (None, None, None) and "fewer than 20" in few.reason
        enough = tail_extrapolation(np.linspace(0, 0.5, 105))
        assert enough.value is not None and enough.reason is None
        assert tail_extrapolation(np.zeros(500)).value is None
        assert tail_extrapolation(np.linspace(0, 0.5, 1000), threshold=0.495).value is None

    def test_refuses_what_it_cannot_answer(self) -> None:
        max_C = np.linspace(0, 0.5, 200)
        with pytest.raises(ValueError, match=r"between 0\.8 "):
            tail_extrapolation(max_C, quantile=0.5)
        with pytest.raises(EmptyComparisonError):
            tail_extrapolation(np.array([]))
        with pytest.raises(NotComparableError):
            tail_extrapolation(np.r_[max_C, 1.5])
