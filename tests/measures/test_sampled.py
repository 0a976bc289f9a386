"""Sampled-token estimators against 50-digit decimals, and their expectations against exact divergences."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mismatchscope.errors import EmptyComparisonError
from mismatchscope.measures.full import divergences
from mismatchscope.measures.sampled import (
    k3,
    sampled_estimators,
)

log_prob = st.floats(-60, 0)


def decimal_k3(d: float) -> float:
    with localcontext(prec=60):
        return float(Decimal(d).exp() - 1 - Decimal(d))


@given(log_prob, log_prob)
def test_every_estimator_matches_its_definition(logp_mu: float, logp_pi: float) -> None:
    s = sampled_estimators([logp_mu], [logp_pi])
    d = logp_pi - logp_mu
    with localcontext(prec=60):
        mu, pi = Decimal(logp_mu).exp(), Decimal(logp_pi).exp()
        difference = float(pi - mu)
    assert s.log_ratio[0] == d
    assert s.ratio[0] == pytest.approx(math.exp(d), rel=1e-14)
    assert s.k1[0] == -d
    assert s.k2[0] == d * d / 2
    assert s.k3[0] == pytest.approx(decimal_k3(d), rel=1e-12, abs=1e-50)
    assert s.shortfall[0] == pytest.approx(max(0.0, 1 - math.exp(d)), abs=1e-15)
    assert s.binary_tv[0] == pytest.approx(abs(difference), rel=1e-9, abs=1e-50)
    assert s.prob_diff[0] == pytest.approx(difference, rel=1e-9, abs=1e-50)
    assert s.abs_logprob_diff[0] == abs(d)
    assert s.exp_abs_diff[0] == pytest.approx(math.exp(abs(d)), rel=1e-14)


@pytest.mark.parametrize("d", [1e-15, -1e-12, 1e-9, -1e-6, 1e-3, 0.0099999, 0.01, -0.01, 0.5, -30.0, 40.0])
def test_k3_keeps_its_digits_at_every_size(d: float) -> None:
    assert k3(np.array([d]))[0] == pytest.approx(decimal_k3(d), rel=1e-13, abs=0)


@given(st.floats(-1e-3, 1e-3))
def test_k3_is_never_negative(d: float) -> None:
    assert k3(np.array([d]))[0] >= 0


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=2, max_size=12), st.integers(0, 2))
def test_expectations_under_mu_are_the_divergences(logits: list[tuple[float, float]], leaked: int) -> None:
    logits_2V = np.array(logits).T
    logits_2V[0, : min(leaked, len(logits) - 1)] = -np.inf  # ids that pi alone supports
    logp_2V = logits_2V - np.log(np.exp(logits_2V).sum(axis=1, keepdims=True))
    exact = divergences(logp_2V[:1], logp_2V[1:], normalised=True)
    drawn = np.isfinite(logp_2V[0])
    mu = np.exp(logp_2V[0, drawn])
    s = sampled_estimators(logp_2V[0, drawn], logp_2V[1, drawn])

    def mean(values: np.ndarray) -> float:
        return math.fsum(mu * values)

    assert mean(s.shortfall) == pytest.approx(exact.tv[0], abs=1e-12)
    assert mean(s.ratio) == pytest.approx(1 - exact.leak[0], abs=1e-12)
    assert mean(s.k1) == pytest.approx(exact.kl[0], abs=1e-12)
    assert mean(s.k3) == pytest.approx(exact.kl[0] - exact.leak[0], abs=1e-12)
    assert mean(np.abs(s.ratio - 1)) / 2 == pytest.approx(exact.tv[0] - exact.leak[0] / 2, abs=1e-12)
    assert (s.binary_tv <= exact.tv[0] + 1e-12).all()


def test_a_token_outside_the_reference_support_is_counted() -> None:
    s = sampled_estimators([-1.0, -2.0], [-np.inf, -2.0])
    assert s.log_ratio[0] == -np.inf
    assert s.ratio[0] == 0
    assert s.shortfall[0] == 1
    assert s.binary_tv[0] == pytest.approx(math.exp(-1))
    assert s.prob_diff[0] == pytest.approx(-math.exp(-1))
    assert s.k1[0] == s.k2[0] == s.k3[0] == s.exp_abs_diff[0] == np.inf
    assert (s.shortfall[1], s.k3[1]) == (0, 0)


def test_a_rare_token_with_a_huge_ratio_has_a_tiny_tv() -> None:
    s = sampled_estimators([math.log(1e-4)], [math.log(1e-2)])
    assert s.ratio[0] == pytest.approx(100)
    assert s.binary_tv[0] == pytest.approx(9.9e-3)


@pytest.mark.parametrize(
    ("logp_mu", "logp_pi"),
    [
        ([-1.0, np.nan], [-1.0, -1.0]),
        ([-1.0, -1.0], [-1.0, np.nan]),
        ([-1.0, -1.0], [-1.0, np.inf]),
        ([-1.0, 0.01], [-1.0, -1.0]),
        ([-1.0, -np.inf], [-1.0, -1.0]),
    ],
)
def test_what_is_no_log_probability_is_refused_by_index(logp_mu: list[float], logp_pi: list[float]) -> None:
    with pytest.raises(ValueError, match="row 1: "):
        sampled_estimators(logp_mu, logp_pi)


def test_float32_rounding_above_zero_is_accepted_and_not_clamped() -> None:
    assert sampled_estimators([4e-6], [0.0]).log_ratio[0] == -4e-6


def test_shapes_and_empty_input_are_errors() -> None:
    with pytest.raises(ValueError, match="expected two arrays"):
        sampled_estimators([-1.0], [-1.0, -1.0])
    with pytest.raises(EmptyComparisonError):
        sampled_estimators([], [])
