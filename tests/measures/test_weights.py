"""ESS and χ² of whole responses: against their definitions, and when nothing may be concluded from them."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mismatchscope.errors import EmptyComparisonError
from mismatchscope.measures.weights import WeightFigures, pareto_k_limit, weight_figures


def of(log_ratio: object) -> WeightFigures:
    """Of sequences that are a prompt each."""
    return weight_figures(log_ratio, np.arange(len(log_ratio)))


@given(st.lists(st.floats(-20, 20), min_size=1, max_size=20))
def test_ess_and_chi2_match_their_definitions(log_ratio: list[float]) -> None:
    with localcontext(prec=60):
        w = [Decimal(d).exp() for d in log_ratio]
        ess_fraction = float(sum(w) ** 2 / (len(w) * sum(x * x for x in w)))
        chi2 = float(sum((x - 1) ** 2 for x in w) / len(w))
    measured = of(log_ratio)
    assert measured.ess_fraction == pytest.approx(ess_fraction, rel=1e-10)
    assert measured.chi2 == pytest.approx(chi2, rel=1e-10, abs=1e-30)


@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=10), st.floats(-500, 500))
def test_ess_is_bounded_and_blind_to_scale(log_ratio: list[float], shift: float) -> None:
    ess = of(log_ratio).ess_fraction
    assert 1 / len(log_ratio) - 1e-9 <= ess <= 1 + 1e-9
    assert of(np.array(log_ratio) + shift).ess_fraction == pytest.approx(ess, rel=1e-6)


def test_weights_at_the_edges() -> None:
    equal = of([0.0, 0.0])
    assert (equal.ess_fraction, equal.low, equal.high, equal.chi2, equal.reason) == (1, 1, 1, 0, None)
    assert of([0.0, -np.inf]).ess_fraction == pytest.approx(0.5)
    none = of([-np.inf, -np.inf])
    assert none.ess_fraction is None and none.reason
    assert of([1000.0, 0.0]).ess_fraction == pytest.approx(0.5)
    assert of([1000.0, 0.0]).chi2 == np.inf
    with pytest.raises(EmptyComparisonError):
        of([])
    with pytest.raises(ValueError, match="sequence 1"):
        of([0.0, np.nan])


def test_the_limit_of_k_grows_with_the_number_of_responses() -> None:
    assert [round(pareto_k_limit(n), 3) for n in (2, 10, 64, 512, 2200, 10**6)] == [0, 0, 0.446, 0.631, 0.7, 0.7]


@pytest.mark.parametrize(
    ("log_ratio_S", "why"),
    [
        (0.6 * -np.log((np.arange(64) + 0.5) / 64), "above 0.45"),  # k of 0.6: too heavy for 64
        (np.linspace(-0.1, 0.1, 20), "fewer than 25"),
        (np.full(3, -np.inf), "every weight is zero"),
    ],
)
def test_nothing_is_claimed_of_weights_whose_tail_is_not_known_to_be_light(
    log_ratio_S: np.ndarray, why: str
) -> None:
    found = of(log_ratio_S)
    assert why in found.reason and (found.low, found.high) == (None, None)


def test_more_responses_bear_the_same_tail() -> None:
    found = of(0.6 * -np.log((np.arange(4000) + 0.5) / 4000))
    assert found.pareto_k == pytest.approx(0.6, abs=0.05) and found.reason is None
    assert found.low < found.ess_fraction < found.high


def test_responses_of_one_prompt_have_no_interval() -> None:
    found = weight_figures(np.random.default_rng(0).normal(0, 0.1, 100), np.zeros(100, dtype=int))
    assert found.low is None and "prompts" in found.reason


def test_an_ess_near_one_keeps_its_digits() -> None:
    """Ratios that differ by 1e-7 leave an ESS of 1 − 1e-14, which no difference from 1 in float64 would show."""
    log_ratio_S = 1e-7 * np.random.default_rng(0).normal(size=400)
    found = of(log_ratio_S)
    assert found.low <= found.ess_fraction <= found.high <= 1 and found.reason is None


@pytest.mark.parametrize(("spread", "samples"), [(0.02, 8), (0.1, 1), (0.3, 8)])
def test_the_interval_of_the_ess_holds_its_level(spread: float, samples: int) -> None:
    """Log-normal weights that share a part by prompt, whose ESS is exp(−spread²)."""
    rng, truth, held = np.random.default_rng(3), math.exp(-(spread**2)), []
    for _ in range(200):
        shared_C, own_CS = rng.normal(size=(64, 1)), rng.normal(size=(64, samples))
        log_ratio_S = spread * (0.6 * shared_C + 0.8 * own_CS).ravel() - spread**2 / 2
        found = weight_figures(log_ratio_S, np.repeat(np.arange(64), samples))
        if found.reason is None:
            held.append(found.low <= truth <= found.high)
    assert len(held) > 150 and np.mean(held) >= 0.95 - 2.5 * math.sqrt(0.95 * 0.05 / len(held))
