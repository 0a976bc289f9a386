"""The figures from logits against the textbook definitions. Legend: N = states, V = vocabulary."""

from __future__ import annotations

import numpy as np
import pytest
from blocks import normal
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mismatchscope.measures.full import Divergences, divergences

INF = np.inf


def oracle(logits_mu_V: np.ndarray, logits_pi_V: np.ndarray) -> dict[str, float]:
    """The textbook definitions, in extended precision where the machine has it. An id is in a support when its
    probability is a positive float64."""
    logp_mu, logp_pi = (
        x - x.max() - np.log(np.exp(x - x.max()).sum())
        for x in (logits_mu_V.astype(np.longdouble), logits_pi_V.astype(np.longdouble))
    )
    mu, pi = np.exp(logp_mu), np.exp(logp_pi)
    in_mu, in_pi = mu.astype(float) > 0, pi.astype(float) > 0

    def expectation(p: np.ndarray, value: np.ndarray, support: np.ndarray) -> float:
        return float((p[support] * value[support]).sum())

    both = in_mu & in_pi
    log_ratio = np.subtract(logp_pi, logp_mu, where=both, out=np.zeros_like(mu))
    leaks = np.any(in_pi & ~in_mu)

    def half_kl_from_the_mean(p: np.ndarray) -> float:
        return float((p[p > 0] * np.log(2 * p[p > 0] / (mu + pi)[p > 0])).sum() / 2)

    likely = (mu >= 1e-4) | (pi >= 1e-4)
    return {
        "tv": float(np.abs(mu - pi).sum() / 2),
        "kl": INF if np.any(in_mu & ~in_pi) else expectation(mu, -log_ratio, both),
        "reverse_kl": INF if leaks else expectation(pi, log_ratio, both),
        "chi2": INF if leaks else float(np.sum((pi[in_mu] - mu[in_mu]) ** 2 / mu[in_mu])),
        "js": half_kl_from_the_mean(mu) + half_kl_from_the_mean(pi),
        "leak": float(pi[~in_mu].sum()),
        "reverse_leak": float(mu[~in_pi].sum()),
        "max_abs_dlogp": float(np.where(both, np.abs(log_ratio), INF)[likely].max()) if likely.any() else np.nan,
        "max_abs_dlogp_mass": float(mu[likely].sum()),
        "top1_agree": np.argmax(logits_mu_V) == np.argmax(logits_pi_V),
        "entropy_mu": expectation(mu, -logp_mu, in_mu),
        "entropy_pi": expectation(pi, -logp_pi, in_pi),
    }


MASS = {"rel": 0, "abs": 1e-6}
TOLERANCE = {
    "tv": MASS,
    "kl": {"rel": 1e-4, "abs": 1e-14},
    "reverse_kl": {"rel": 1e-4, "abs": 1e-12},
    "chi2": {"rel": 1e-4, "abs": 1e-12},
    "js": {"rel": 1e-4, "abs": 1e-12},
    "leak": MASS,
    "reverse_leak": MASS,
    "max_abs_dlogp": {"rel": 1e-5, "abs": 2e-7},
    "max_abs_dlogp_mass": MASS,
    "top1_agree": {"abs": 0},
    "entropy_mu": {"rel": 0, "abs": 1e-5},
    "entropy_pi": {"rel": 0, "abs": 1e-5},
}


def check(logits_mu_NV: np.ndarray, logits_pi_NV: np.ndarray) -> Divergences:
    result = divergences(logits_mu_NV, logits_pi_NV)
    for row, (x_V, y_V) in enumerate(zip(logits_mu_NV, logits_pi_NV, strict=True)):
        for name, expected in oracle(x_V, y_V).items():
            assert getattr(result, name)[row] == pytest.approx(expected, nan_ok=True, **TOLERANCE[name]), (
                name,
                row,
            )
    return result


# --- against the oracle --------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.0, 1e-6, 1e-3, 1e-2, 0.15, 1.0, 10.0])
def test_perturbed_logits(backend, noise):
    mu = normal(3, 5003, scale=3)
    check(mu, mu + normal(3, 5003, scale=noise, seed=1))


@pytest.mark.parametrize("n_ids", [1, 2, 15, 16, 17, 511, 512, 513, 1023, 1025])
def test_every_width_of_the_last_block(backend, n_ids):
    mu = normal(2, n_ids, scale=4)
    check(mu, mu + normal(2, n_ids, scale=0.05, seed=1))


def test_a_whole_vocabulary(backend):
    mu = normal(2, 151936, scale=3)
    check(mu, mu + normal(2, 151936, scale=1e-3, seed=1))


@pytest.mark.parametrize("logit", np.linspace(0, 0.7, 23, dtype=np.float32).tolist())
def test_rounding_does_not_add_up_where_all_terms_are_the_same(backend, logit):
    mu = np.full((1, 40000), logit, np.float32)
    pi = np.zeros_like(mu)
    mu[0, 0] = 1.0
    pi[0, 1::2] = -0.9
    check(mu, pi)


def test_log_probabilities_against_raw_logits(backend):
    pi = normal(2, 4000, scale=3) + np.float32(70)
    exact = pi.astype(np.float64) - np.log(np.exp(pi.astype(np.float64)).sum(1, keepdims=True))
    check(exact.astype(np.float32), pi)


@pytest.mark.parametrize("offset", [-9000.0, -8100.0, 200.0, 8100.0, 9000.0, 1e6])
def test_logits_far_from_zero(backend, offset):
    mu = normal(2, 3000, scale=3) + np.float32(offset)
    pi = normal(2, 3000, scale=3, seed=1)
    check(mu, pi - np.float32(offset))
    check(mu, pi)
    check(pi, mu)


def test_the_largest_logit_comes_after_the_first_block(backend):
    mu = normal(3, 2000, scale=2)
    mu[0, :512] = -INF
    mu[1, 1500] = 75.0
    mu[2, 1999] = 3e38
    check(mu, normal(3, 2000, scale=2, seed=1))
    check(normal(3, 2000, scale=2, seed=1), mu)


def test_a_certain_token_against_another(backend):
    mu = np.full((1, 3000), -80.0, np.float32)
    pi = mu.copy()
    mu[0, 3], pi[0, 2500] = 80.0, 80.0
    assert check(mu, pi).tv[0] <= 1


def test_identical_logits_have_no_divergence(backend):
    mu = normal(2, 3001, scale=5)
    result = divergences(mu, mu.copy())
    for name in ("tv", "kl", "reverse_kl", "chi2", "js", "leak", "reverse_leak", "max_abs_dlogp"):
        assert np.all(getattr(result, name) == 0), name
    assert result.top1_agree.all()


def test_log_probabilities_are_logits_that_are_normalised_already(backend):
    logits = normal(2, 4, 3000, scale=3).astype(np.float64)
    logits[:, :, 2990:] = -INF
    logp = (logits - np.log(np.exp(logits).sum(-1, keepdims=True))).astype(np.float32)
    stored, result = divergences(*logp, normalised=True), divergences(*logp)
    for name, tolerance in TOLERANCE.items():
        assert getattr(result, name) == pytest.approx(getattr(stored, name), nan_ok=True, **tolerance), name


# --- support -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zero", [-INF, -1e9, float(np.finfo(np.float32).min)])
def test_leak_where_mu_has_no_support(backend, zero):
    mu, pi = normal(2, 3000, scale=2), normal(2, 3000, scale=2, seed=1)
    mu[0, 100:], mu[1, :2900] = zero, zero
    result = check(mu, pi)
    pi_NV = np.exp(pi.astype(float)) / np.exp(pi.astype(float)).sum(1, keepdims=True)
    assert result.leak == pytest.approx([pi_NV[0, 100:].sum(), pi_NV[1, :2900].sum()], abs=1e-6)
    assert np.all(np.isinf(result.reverse_kl)) and np.all(np.isfinite(result.kl))


def test_kl_is_infinite_where_pi_has_no_support(backend):
    mu, pi = normal(1, 3000), normal(1, 3000, seed=1)
    pi[0, 1234] = -INF
    result = check(mu, pi)
    assert np.isinf(result.kl[0]) and np.isfinite(result.reverse_kl[0]) and result.leak[0] == 0


def test_a_support_outside_of_which_both_have_nothing(backend):
    """A padded vocabulary, or the same top-k on both sides."""
    mu, pi = normal(2, 1000), normal(2, 1000, seed=1)
    padded_mu, padded_pi = (np.pad(side, ((0, 0), (0, 700)), constant_values=np.float32(-INF)) for side in (mu, pi))
    result = check(padded_mu, padded_pi)
    assert result.tv == pytest.approx(divergences(mu, pi).tv, abs=1e-7)
    assert np.all(result.leak == 0) and np.all(np.isfinite(result.kl + result.reverse_kl))


@pytest.mark.parametrize("n_ids", [7, 700])
@pytest.mark.parametrize("bad", [np.nan, INF])
@pytest.mark.parametrize("side", ["behaviour", "reference"])
def test_nan_and_infinity_are_refused_by_name(backend, bad, side, n_ids):
    sides = {"behaviour": normal(5, n_ids), "reference": normal(5, n_ids)}
    sides[side][3, 6] = bad
    with pytest.raises(ValueError, match=rf"row 3 of the {side} holds {bad} at id 6"):
        divergences(sides["behaviour"], sides["reference"])


def test_any_bit_pattern_of_nan_is_found(backend):
    mu = normal(1, 2000)
    mu.view(np.uint32)[0, 1777] = 0xFF812345
    with pytest.raises(ValueError, match="row 0 of the behaviour holds nan at id 1777"):
        divergences(mu, normal(1, 2000))


def test_a_row_without_any_support_is_refused(backend):
    pi = normal(3, 800)
    pi[1] = -INF
    with pytest.raises(ValueError, match="row 1 of the reference holds nothing but -inf"):
        divergences(normal(3, 800), pi)


# --- properties ----------------------------------------------------------------------------------------------

logit = st.one_of(st.floats(-60, 60, width=32), st.just(-INF), st.sampled_from([0.0, 0.25, -200.0]))
pairs = st.integers(1, 70).flatmap(lambda n: arrays(np.float32, (2, 1, n), elements=logit))


@settings(deadline=None, max_examples=150)
@given(pairs)
def test_any_row_agrees_with_the_oracle(pair):
    mu, pi = pair
    if np.isneginf(mu).all() or np.isneginf(pi).all():
        with pytest.raises(ValueError, match="nothing but -inf"):
            divergences(mu, pi)
        return
    check(mu, pi)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.01, 0.3, 3.0]), st.integers(-64, 64))
def test_sides_swap_and_constants_do_not_matter(seed, noise, constant):
    mu = np.round(normal(1, 700, scale=3, seed=seed) * 1024) / 1024  # so that adding the constant is exact
    pi = np.round((mu + normal(1, 700, scale=noise, seed=seed + 1)) * 1024) / 1024
    there, back = divergences(mu, pi), divergences(pi + np.float32(constant), mu)
    assert there.tv == pytest.approx(back.tv, rel=1e-5, abs=1e-7)
    assert there.kl == pytest.approx(back.reverse_kl, rel=1e-4)
    assert there.reverse_kl == pytest.approx(back.kl, rel=1e-4)
    assert there.js == pytest.approx(back.js, rel=1e-4)
    assert there.max_abs_dlogp == pytest.approx(back.max_abs_dlogp, rel=1e-4)
    assert np.array_equal(there.top1_agree, back.top1_agree)
