"""Exact divergences against 50-digit decimals, plus the inequalities that hold between them."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mismatchscope.errors import EmptyComparisonError
from mismatchscope.measures import cells
from mismatchscope.measures.divergences import (
    FullDivergences,
    full_divergences,
    renormalise_on_support,
    rounding_floor_tv,
)

logits_pair = st.lists(st.tuples(st.floats(-30, 30), st.floats(-30, 30)), min_size=2, max_size=10).map(
    lambda pairs: np.array(pairs).T
)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def one_state(logits_2V: np.ndarray) -> FullDivergences:
    logp_2V = log_softmax(logits_2V)
    return full_divergences(logp_2V[:1], logp_2V[1:])


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
    measured = full_divergences(logp_2V[:1], logp_2V[1:])
    for name, value in decimal_divergences(*logp_2V).items():
        assert getattr(measured, name)[0] == pytest.approx(value, rel=1e-9, abs=1e-14), name


@pytest.mark.parametrize("size", [1e-3, 1e-6, 1e-8])
def test_tiny_differences_keep_their_digits_where_the_plain_sum_loses_them(size: float) -> None:
    rng = np.random.default_rng(7)
    logits_V = rng.normal(0, 3, 2000)
    logp_2V = log_softmax(np.stack([logits_V, logits_V + rng.normal(0, size, 2000)]))
    measured = full_divergences(logp_2V[:1], logp_2V[1:])
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
    plain = full_divergences(logp_mu_TV, logp_pi_TV)
    padded = full_divergences(np.hstack([logp_mu_TV, padding]), np.hstack([logp_pi_TV, padding]))
    for name in ("tv", "kl", "reverse_kl", "chi2", "js", "entropy_mu"):
        assert getattr(plain, name).dtype == np.float64
        np.testing.assert_allclose(getattr(plain, name), getattr(padded, name), rtol=1e-6)


def test_chunks_agree_with_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    logp_2TV = log_softmax(np.random.default_rng(2).normal(0, 2, (2, 23, 50)))
    whole = full_divergences(*logp_2TV)
    monkeypatch.setattr(cells, "CHUNK_BYTES", 8 * 14 * 50 * 4)
    assert len(list(cells.row_chunks(23, 50))) == 6
    by_chunks = full_divergences(*logp_2TV)
    for name in ("tv", "kl", "chi2", "js", "max_abs_dlogp", "top1_agree"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(by_chunks, name))


def test_support_that_one_side_lacks() -> None:
    with np.errstate(divide="ignore"):
        logp_mu = np.log([[0.5, 0.5, 0.0, 0.0]])
        logp_pi = np.log([[0.25, 0.5, 0.25, 0.0]])
    leaking = full_divergences(logp_mu, logp_pi)
    assert leaking.tv[0] == pytest.approx(0.25)
    assert leaking.leak[0] == pytest.approx(0.25)
    assert leaking.reverse_leak[0] == 0
    assert leaking.kl[0] == pytest.approx(0.5 * math.log(2))
    assert leaking.reverse_kl[0] == leaking.chi2[0] == leaking.max_abs_dlogp[0] == np.inf

    reverse = full_divergences(logp_pi, logp_mu)
    assert (reverse.leak[0], reverse.reverse_leak[0]) == (0, pytest.approx(0.25))
    assert reverse.kl[0] == np.inf
    assert reverse.reverse_kl[0] == pytest.approx(0.5 * math.log(2))
    assert reverse.chi2[0] == pytest.approx(0.5**2 / 0.25 + 0.5**2 / 0.5 - 1)


def test_disjoint_supports_are_as_far_apart_as_can_be() -> None:
    logp_2V = np.array([[0.0, -np.inf], [-np.inf, 0.0]])
    apart = full_divergences(logp_2V[:1], logp_2V[1:])
    assert apart.tv[0] == 1
    assert apart.js[0] == pytest.approx(math.log(2))
    assert apart.kl[0] == apart.reverse_kl[0] == np.inf


@pytest.mark.parametrize("mask", [-1e4, float(np.finfo(np.float32).min)])
def test_a_large_negative_mask_counts_as_outside_the_support(mask: float) -> None:
    logp_mu = np.array([[0.0, mask]])
    logp_pi = np.log([[0.75, 0.25]])
    masked = full_divergences(logp_mu, logp_pi)
    assert masked.leak[0] == pytest.approx(0.25)
    assert masked.reverse_kl[0] == np.inf
    assert masked.kl[0] == pytest.approx(math.log(4 / 3))


def test_log_ratios_beyond_the_range_of_exp_stay_right() -> None:
    far = full_divergences(np.array([[0.0, -720.0]]), np.array([[-720.0, 0.0]]))
    assert far.tv[0] == 1
    assert far.kl[0] == far.reverse_kl[0] == pytest.approx(720)
    assert far.js[0] == pytest.approx(math.log(2))
    assert far.chi2[0] == np.inf  # exp(720)


def test_max_abs_dlogp_looks_at_a_stated_mass() -> None:
    logp_mu = np.log([[0.9, 0.0999, 1e-4]])
    logp_pi = np.log([[0.9, 0.0999 + 1e-4 - 1e-9, 1e-9]])
    every_id = full_divergences(logp_mu, logp_pi, mass_floor=1e-5)
    assert every_id.max_abs_dlogp[0] == pytest.approx(math.log(1e5))
    assert every_id.max_abs_dlogp_mass[0] == pytest.approx(1)
    likely = full_divergences(logp_mu, logp_pi, mass_floor=1e-2)
    assert likely.max_abs_dlogp[0] == pytest.approx(math.log((0.1 - 1e-9) / 0.0999))
    assert likely.max_abs_dlogp_mass[0] == pytest.approx(0.9999)
    nothing = full_divergences(logp_mu, logp_pi, mass_floor=0.95)
    assert math.isnan(nothing.max_abs_dlogp[0])
    assert nothing.max_abs_dlogp_mass[0] == 0


def test_top1_agreement() -> None:
    logp_mu = np.log([[0.6, 0.4], [0.6, 0.4]])
    logp_pi = np.log([[0.51, 0.49], [0.49, 0.51]])
    assert full_divergences(logp_mu, logp_pi).top1_agree.tolist() == [True, False]


@pytest.mark.parametrize("poison", [np.nan, np.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_nan_and_infinity_are_refused_by_row(poison: float, side: int) -> None:
    logp_2TV = np.full((2, 4, 2), math.log(0.5))
    logp_2TV[side, 2, 1] = poison
    with pytest.raises(ValueError, match="row 2"):
        full_divergences(*logp_2TV)


def test_rows_that_are_not_normalised_are_refused() -> None:
    logp_2TV = np.full((2, 4, 2), math.log(0.5))
    logp_2TV[1, 3] += 1e-4
    with pytest.raises(ValueError, match=r"row 3 of the reference .* not normalised"):
        full_divergences(*logp_2TV)
    logp_2TV[1, 3] = -np.inf
    with pytest.raises(ValueError, match="row 3"):
        full_divergences(*logp_2TV)


def test_shapes_and_empty_input_are_errors() -> None:
    with pytest.raises(ValueError, match="expected two arrays"):
        full_divergences(np.zeros((1, 2)), np.zeros((1, 3)))
    with pytest.raises(EmptyComparisonError):
        full_divergences(np.zeros((0, 2)), np.zeros((0, 2)))


def test_renormalising_on_the_support_removes_what_top_k_costs() -> None:
    logp_pi = log_softmax(np.random.default_rng(3).normal(0, 2, (6, 40)))
    kept = logp_pi >= np.sort(logp_pi, axis=1)[:, -5:-4]
    logp_mu = log_softmax(np.where(kept, logp_pi, -np.inf))
    processed = full_divergences(logp_mu, logp_pi)
    kept_mass = np.exp(logp_pi).sum(axis=1, where=kept)
    np.testing.assert_allclose(processed.tv, 1 - kept_mass, rtol=1e-12)
    on_support, kept_logmass = renormalise_on_support(logp_pi, logp_mu)
    np.testing.assert_allclose(kept_logmass, np.log(kept_mass), rtol=1e-12)
    same = full_divergences(logp_mu, on_support)
    assert same.tv.max() < 1e-15
    assert same.leak.max() == 0


def test_renormalised_float32_rows_stay_float32_and_normalised() -> None:
    logp_pi = log_softmax(np.random.default_rng(3).normal(0, 3, (4, 30_000))).astype(np.float32)
    kept = logp_pi > -14
    logp_mu = log_softmax(np.where(kept, logp_pi.astype(float), -np.inf)).astype(np.float32)
    on_support, kept_logmass = renormalise_on_support(logp_pi, logp_mu)
    assert on_support.dtype == np.float32
    np.testing.assert_array_equal(np.isneginf(on_support), ~kept)
    exact = np.log(np.exp(logp_pi.astype(float)).sum(axis=1, where=kept))
    np.testing.assert_allclose(kept_logmass, exact, atol=1e-7)
    assert full_divergences(logp_mu, on_support).tv.max() < 1e-6


def test_a_support_that_the_reference_all_but_lacks_is_still_renormalised() -> None:
    logp_mu, logp_pi = np.float32([[0.0, -np.inf]]), np.float32([[-300.0, 0.0]])
    on_support, kept_logmass = renormalise_on_support(logp_pi, logp_mu)
    assert (on_support[0, 0], kept_logmass[0]) == (0, -300)


def test_renormalising_without_common_mass_is_an_error() -> None:
    with pytest.raises(ValueError, match="row 0"):
        renormalise_on_support(np.array([[0.0, -np.inf]]), np.array([[-np.inf, 0.0]]))


@pytest.mark.parametrize(("dtype", "numpy_dtype"), [("float16", np.float16), ("float32", np.float32)])
def test_rounding_floor_bounds_what_rounding_does(dtype: str, numpy_dtype: type) -> None:
    logits_TV = np.random.default_rng(4).uniform(-20, 20, (50, 100))
    rounded_TV = logits_TV.astype(numpy_dtype).astype(np.float64)
    tv_T = full_divergences(log_softmax(logits_TV), log_softmax(rounded_TV)).tv
    assert 0 < tv_T.max() <= rounding_floor_tv(20.0, dtype)


def test_rounding_floor_is_reached_by_two_balanced_ids() -> None:
    half_ulp = 2.0**-8 * 16  # bfloat16, logits in [16, 32)
    logits_2V = np.array([[1, -1], [-1, 1]]) * half_ulp / 2  # one id rounded up, the other down
    assert one_state(logits_2V).tv[0] == pytest.approx(rounding_floor_tv(31.0, "bfloat16"), rel=1e-12)


def test_rounding_floor_rejects_what_it_does_not_know() -> None:
    assert rounding_floor_tv(0.0, "float32") == 0
    with pytest.raises(ValueError, match="bfloat16"):
        rounding_floor_tv(1.0, "int8")
    with pytest.raises(ValueError, match="finite"):
        rounding_floor_tv(math.nan, "float32")
