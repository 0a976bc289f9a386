"""Exact divergences against 50-digit decimals, plus the inequalities that hold between them."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from functools import partial

import numpy as np
import pytest
from blocks import log_softmax
from hypothesis import given
from hypothesis import strategies as st

from mismatchscope.errors import EmptyComparisonError
from mismatchscope.measures import cells
from mismatchscope.measures.full import Divergences
from mismatchscope.measures.full import divergences as from_logits

divergences = partial(from_logits, normalised=True)

logits_pair = st.lists(st.tuples(st.floats(-30, 30), st.floats(-30, 30)), min_size=2, max_size=10).map(
    lambda pairs: np.array(pairs).T
)


def one_state(logits_2V: np.ndarray) -> Divergences:
    logp_2V = log_softmax(logits_2V)
    return divergences(logp_2V[:1], logp_2V[1:])


def decimal_divergences(logp_mu_V: np.ndarray, logp_pi_V: np.ndarray) -> dict[str, float]:
    """The textbook sums over the log-probabilities as given, in 60 digits; both supports are full."""
    with localcontext(prec=60):
        logs = [(Decimal(float(a)), Decimal(float(b))) for a, b in zip(logp_mu_V, logp_pi_V, strict=True)]
        cells = [(a.exp(), b.exp(), a, b) for a, b in logs]
        leftover = sum(q for _, q, _, _ in cells) - sum(p for p, _, _, _ in cells)
        half = Decimal("0.5")
        out = {
            "tv": half * sum(abs(p - q) for p, q, _, _ in cells),
            # `leftover` is the float rounding of the two normalisers; zero for exact distributions.
            "kl": sum(p * (a - b) for p, _, a, b in cells) + leftover,
            "reverse_kl": sum(q * (b - a) for _, q, a, b in cells) - leftover,
            "chi2": sum((p - q) ** 2 / p for p, q, _, _ in cells),
            "js": half * sum(p * (2 * p / (p + q)).ln() + q * (2 * q / (p + q)).ln() for p, q, _, _ in cells),
            "entropy_mu": -sum(p * a for p, _, a, _ in cells),
            "entropy_pi": -sum(q * b for _, q, _, b in cells),
        }
        return {name: float(value) for name, value in out.items()}


@given(logits_pair)
def test_every_divergence_matches_the_textbook_sum(logits_2V: np.ndarray) -> None:
    logp_2V = log_softmax(logits_2V)
    measured = divergences(logp_2V[:1], logp_2V[1:])
    for name, value in decimal_divergences(*logp_2V).items():
        assert getattr(measured, name)[0] == pytest.approx(value, rel=1e-9, abs=1e-14), name


@pytest.mark.parametrize("size", [1e-3, 1e-6, 1e-8])
def test_tiny_differences_keep_their_digits_where_the_plain_sum_loses_them(size: float) -> None:
    rng = np.random.default_rng(7)
    logits_V = rng.normal(0, 3, 2000)
    logp_2V = log_softmax(np.stack([logits_V, logits_V + rng.normal(0, size, 2000)]))
    measured = divergences(logp_2V[:1], logp_2V[1:])
    oracle = decimal_divergences(*logp_2V)
    for name in ("tv", "kl", "reverse_kl", "chi2", "js"):
        assert getattr(measured, name)[0] == pytest.approx(oracle[name], rel=1e-12, abs=0), name
    if size <= 1e-6:
        plain_kl = float(np.sum(np.exp(logp_2V[0]) * (logp_2V[0] - logp_2V[1])))
        assert abs(plain_kl - oracle["kl"]) > 1e-5 * oracle["kl"]


@given(logits_pair)
def test_inequalities_and_symmetry(logits_2V: np.ndarray) -> None:
    there, back = one_state(logits_2V), one_state(logits_2V[::-1])
    tv, kl, js = there.tv[0], there.kl[0], there.js[0]
    slack = 1e-12
    assert 0 <= tv <= 1 + slack
    assert tv == back.tv[0]
    assert js == pytest.approx(back.js[0], rel=1e-12, abs=1e-300)
    assert there.reverse_kl[0] == back.kl[0]
    assert tv <= math.sqrt(min(kl, there.reverse_kl[0]) / 2) + slack  # Pinsker
    assert tv**2 / 2 <= js + slack
    assert js <= tv * math.log(2) + slack
    assert there.reverse_kl[0] <= math.log1p(there.chi2[0]) + slack


@given(logits_pair)
def test_identical_policies_are_exactly_zero_apart(logits_2V: np.ndarray) -> None:
    same = one_state(logits_2V[[0, 0]])
    for name in ("tv", "kl", "reverse_kl", "chi2", "js", "leak", "reverse_leak"):
        assert getattr(same, name)[0] == 0, name
    assert same.top1_agree[0]


def test_float32_rows_and_padded_columns_change_nothing() -> None:
    rng = np.random.default_rng(1)
    logp_mu_TV = log_softmax(rng.normal(0, 4, (5, 300))).astype(np.float32)
    logp_pi_TV = log_softmax(rng.normal(0, 4, (5, 300))).astype(np.float32)
    padding = np.full((5, 20), -np.inf, np.float32)
    plain = divergences(logp_mu_TV, logp_pi_TV)
    padded = divergences(np.hstack([logp_mu_TV, padding]), np.hstack([logp_pi_TV, padding]))
    for name in ("tv", "kl", "reverse_kl", "chi2", "js", "entropy_mu"):
        assert getattr(plain, name).dtype == np.float64
        np.testing.assert_allclose(getattr(plain, name), getattr(padded, name), rtol=1e-6)


def test_chunks_agree_with_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    logp_2TV = log_softmax(np.random.default_rng(2).normal(0, 2, (2, 23, 50)))
    whole = divergences(*logp_2TV)
    monkeypatch.setattr(cells, "CHUNK_BYTES", 8 * 14 * 50 * 4)
    assert len(list(cells.row_chunks(23, 50))) == 6
    by_chunks = divergences(*logp_2TV)
    for name in ("tv", "kl", "chi2", "js", "max_abs_dlogp", "top1_agree"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(by_chunks, name))


def test_support_that_one_side_lacks() -> None:
    with np.errstate(divide="ignore"):
        logp_mu = np.log([[0.5, 0.5, 0.0, 0.0]])
        logp_pi = np.log([[0.25, 0.5, 0.25, 0.0]])
    leaking = divergences(logp_mu, logp_pi)
    assert leaking.tv[0] == pytest.approx(0.25)
    assert leaking.leak[0] == pytest.approx(0.25)
    assert leaking.reverse_leak[0] == 0
    assert leaking.kl[0] == pytest.approx(0.5 * math.log(2))
    assert leaking.reverse_kl[0] == leaking.chi2[0] == leaking.max_abs_dlogp[0] == np.inf

    reverse = divergences(logp_pi, logp_mu)
    assert (reverse.leak[0], reverse.reverse_leak[0]) == (0, pytest.approx(0.25))
    assert reverse.kl[0] == np.inf
    assert reverse.reverse_kl[0] == pytest.approx(0.5 * math.log(2))
    assert reverse.chi2[0] == pytest.approx(0.5**2 / 0.25 + 0.5**2 / 0.5 - 1)


def test_disjoint_supports_are_as_far_apart_as_can_be() -> None:
    logp_2V = np.array([[0.0, -np.inf], [-np.inf, 0.0]])
    apart = divergences(logp_2V[:1], logp_2V[1:])
    assert apart.tv[0] == 1
    assert apart.js[0] == pytest.approx(math.log(2))
    assert apart.kl[0] == apart.reverse_kl[0] == np.inf


@pytest.mark.parametrize("mask", [-1e4, float(np.finfo(np.float32).min)])
def test_a_large_negative_mask_counts_as_outside_the_support(mask: float) -> None:
    logp_mu = np.array([[0.0, mask]])
    logp_pi = np.log([[0.75, 0.25]])
    masked = divergences(logp_mu, logp_pi)
    assert masked.leak[0] == pytest.approx(0.25)
    assert masked.reverse_kl[0] == np.inf
    assert masked.kl[0] == pytest.approx(math.log(4 / 3))


def test_log_ratios_beyond_the_range_of_exp_stay_right() -> None:
    far = divergences(np.array([[0.0, -720.0]]), np.array([[-720.0, 0.0]]))
    assert far.tv[0] == 1
    assert far.kl[0] == far.reverse_kl[0] == pytest.approx(720)
    assert far.js[0] == pytest.approx(math.log(2))
    assert far.chi2[0] == np.inf  # exp(720)


def test_max_abs_dlogp_looks_at_a_stated_mass() -> None:
    logp_mu = np.log([[0.9, 0.0999, 1e-4]])
    logp_pi = np.log([[0.9, 0.0999 + 1e-4 - 1e-9, 1e-9]])
    every_id = divergences(logp_mu, logp_pi, mass_floor=1e-5)
    assert every_id.max_abs_dlogp[0] == pytest.approx(math.log(1e5))
    assert every_id.max_abs_dlogp_mass[0] == pytest.approx(1)
    likely = divergences(logp_mu, logp_pi, mass_floor=1e-2)
    assert likely.max_abs_dlogp[0] == pytest.approx(math.log((0.1 - 1e-9) / 0.0999))
    assert likely.max_abs_dlogp_mass[0] == pytest.approx(0.9999)
    nothing = divergences(logp_mu, logp_pi, mass_floor=0.95)
    assert math.isnan(nothing.max_abs_dlogp[0])
    assert nothing.max_abs_dlogp_mass[0] == 0


def test_top1_agreement() -> None:
    logp_mu = np.log([[0.6, 0.4], [0.6, 0.4]])
    logp_pi = np.log([[0.51, 0.49], [0.49, 0.51]])
    assert divergences(logp_mu, logp_pi).top1_agree.tolist() == [True, False]


@pytest.mark.parametrize("poison", [np.nan, np.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_nan_and_infinity_are_refused_by_row(poison: float, side: int) -> None:
    logp_2TV = np.full((2, 4, 2), math.log(0.5))
    logp_2TV[side, 2, 1] = poison
    with pytest.raises(ValueError, match="row 2"):
        divergences(*logp_2TV)


def test_rows_that_are_not_normalised_are_refused() -> None:
    logp_2TV = np.full((2, 4, 2), math.log(0.5))
    logp_2TV[1, 3] += 1e-4
    with pytest.raises(ValueError, match=r"row 3 of the reference .* not normalised"):
        divergences(*logp_2TV)
    logp_2TV[1, 3] = -np.inf
    with pytest.raises(ValueError, match="row 3"):
        divergences(*logp_2TV)


def test_shapes_and_empty_input_are_errors() -> None:
    with pytest.raises(ValueError, match="shapes must be the same"):
        divergences(np.zeros((1, 2)), np.zeros((1, 3)))
    with pytest.raises(EmptyComparisonError):
        divergences(np.zeros((0, 2)), np.zeros((0, 2)))
