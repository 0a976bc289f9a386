"""`divergences` of log-probabilities by the compiled kernel against its reference in numpy and float64.

Legend: T = states, V = vocabulary.
"""

from __future__ import annotations

import tracemalloc
from dataclasses import fields
from functools import partial

import numpy as np
import pytest
from blocks import log_probabilities, normal
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mismatchscope.errors import EmptyComparisonError
from mismatchscope.measures import full
from mismatchscope.measures.full import Divergences
from mismatchscope.measures.full import divergences as from_logits

pytestmark = pytest.mark.usefixtures("compiled_kernel")
INF = np.inf
NAMES = [field.name for field in fields(Divergences) if field.name != "log_ratio"]
MASSES = ("tv", "leak", "reverse_leak", "max_abs_dlogp_mass")


divergences = partial(from_logits, normalised=True)


def by_numpy(logp_mu_TV: np.ndarray, logp_pi_TV: np.ndarray, mass_floor: float = 1e-4) -> Divergences:
    """float64 rows are left to numpy."""
    return divergences(logp_mu_TV.astype(float), logp_pi_TV.astype(float), mass_floor=mass_floor)


def check(logp_mu_TV: np.ndarray, logp_pi_TV: np.ndarray, mass_floor: float = 1e-4) -> Divergences:
    measured = divergences(logp_mu_TV, logp_pi_TV, mass_floor=mass_floor)
    reference = by_numpy(logp_mu_TV, logp_pi_TV, mass_floor=mass_floor)
    for name in NAMES:
        value_T, expected_T = getattr(measured, name), getattr(reference, name)
        assert value_T.dtype == expected_T.dtype, name
        tolerance = {"rtol": 0, "atol": 1e-6} if name in MASSES else {"rtol": 1e-4, "atol": 1e-30}
        np.testing.assert_allclose(value_T, expected_T, err_msg=name, **tolerance)
    return measured


@pytest.fixture
def without_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test fails if a row is not left to the kernel."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("numpy was asked")

    monkeypatch.setattr(full, "_by_numpy", refuse)


# --- close, far and everything between -----------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
@pytest.mark.parametrize("noise", [1e-6, 1e-4, 1e-2, 0.15, 0.35, 1.0, 10.0, 100.0])
def test_perturbed_policies(scale, noise):
    logits = normal(3, 5003, scale=scale).astype(float)
    check(*log_probabilities(logits, logits + normal(3, 5003, scale=noise, seed=1)))


@pytest.mark.parametrize("n_ids", [1, 2, 3, 15, 16, 17, 31, 511, 512, 513, 1000, 1023, 1025])
@pytest.mark.parametrize("noise", [0.02, 2.0])
def test_every_width_of_the_last_block(n_ids, noise):
    mu = normal(3, n_ids, scale=4)
    check(*log_probabilities(mu, mu + normal(3, n_ids, scale=noise, seed=1)))


def test_a_whole_vocabulary():
    mu = normal(2, 151_936, scale=3)
    check(*log_probabilities(mu, mu + normal(2, 151_936, scale=1e-3, seed=1)))


def test_a_few_ids_far_apart_in_a_row_that_is_close_otherwise():
    mu, pi = normal(3, 4000, scale=2), normal(3, 4000, scale=2)
    pi[0, 700:710] += 5
    pi[1, 3999] -= 5
    pi[2, 0] = -INF
    check(*log_probabilities(mu, pi))


@pytest.mark.parametrize("scale", [0.0, 5.0])
def test_identical_policies_are_exactly_zero_apart(scale, without_numpy):
    logits = normal(3, 4001, scale=scale)
    logits[1, 3000:] = -INF
    logits[2, :700] = -1e9
    (logp,) = log_probabilities(logits)
    same = divergences(logp, logp.copy(), mass_floor=1e-5)
    for name in ("tv", "kl", "reverse_kl", "chi2", "js", "leak", "reverse_leak", "max_abs_dlogp"):
        assert np.all(getattr(same, name) == 0), name
    assert same.top1_agree.all()


def test_chi2_beyond_the_range_of_float32():
    mu = np.float32([[0.0, -200.0, -120.0, -95.0], [0.0, -700.0, -300.0, -41.0]])
    pi = np.float32([[-60.0, -60.0, 0.0, -60.0], [-1e-3, -90.0, -250.0, -6.9082555]])
    measured = check(*log_probabilities(mu, pi))
    assert measured.chi2[0] > 1e50
    assert check(np.float32([[0.0, -720.0]]), np.float32([[-720.0, 0.0]])).chi2[0] == INF


# --- support -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zero", [-INF, -1e4, -1e9, float(np.finfo(np.float32).min)])
def test_leaks_masks_and_padding(zero):
    mu, pi = normal(5, 3000, scale=2), normal(5, 3000, scale=2, seed=1)
    mu[0, 100:], pi[1, :2900], mu[2, 1234] = zero, zero, zero
    mu[3, 2000:], pi[3, 2000:] = zero, zero  # a padded vocabulary
    mu[4, :2999], pi[4, 1:] = zero, zero  # nothing in common
    measured = check(*log_probabilities(mu, pi))
    assert np.isinf(measured.reverse_kl).tolist() == [True, False, True, False, True]
    assert np.isinf(measured.kl).tolist() == [False, True, False, False, True]
    assert (measured.leak > 0).tolist() == [True, False, True, False, True]
    assert measured.tv[4] == 1
    assert measured.js[4] == pytest.approx(np.log(2))


def test_a_leak_too_small_for_float32_still_makes_kl_infinite():
    measured = check(np.float32([[0.0, -INF]]), np.float32([[0.0, -500.0]]))
    assert measured.leak[0] > 0
    assert measured.reverse_kl[0] == measured.chi2[0] == INF


# --- the most probable ids -----------------------------------------------------------------------------------


def test_ties_go_to_the_lowest_id():
    logits = np.zeros((5, 1100), np.float32)
    other = logits.copy()
    logits[1, [30, 900]] = other[1, 30] = 2.0  # a tie across blocks, won by the same id
    logits[2, [30, 900]] = other[2, 900] = 2.0  # ... by another one
    logits[3, 1050], other[3, 1051] = 2.0, 2.0
    logits[4, 7], other[4, [8, 7]] = 2.0, 2.0
    assert check(*log_probabilities(logits, other)).top1_agree.tolist() == [True, True, False, False, True]


def test_positive_and_negative_zero_are_a_tie():
    certain = np.float32([[0.0, -INF]])
    assert check(certain, np.float32([[-0.0, -INF]])).top1_agree[0]


@pytest.mark.parametrize("mass_floor", [0.0, 1e-30, 1e-6, 1e-4, 1e-2, 0.5, 0.999])
def test_max_abs_dlogp_over_the_stated_mass(mass_floor):
    mu = normal(4, 3000, scale=3)
    pi = mu + normal(4, 3000, scale=0.5, seed=1)
    pi[2, int(mu[2].argmax())] = -INF
    pi[3, 40:], mu[3, 40:] = -INF, -INF
    check(*log_probabilities(mu, pi), mass_floor=mass_floor)


@pytest.mark.parametrize("mass_floor", [0.125, 1e-4, 0.3, 1e-3])
def test_an_id_at_the_floor_counts_as_it_does_in_float64(mass_floor):
    logp = np.float32(np.log(mass_floor))
    around = np.array([np.nextafter(logp, np.float32(-9)), logp, np.nextafter(logp, np.float32(0))])
    rows = np.stack([around, np.log(1 - np.exp(around.astype(float))).astype(np.float32)], axis=1)
    full, reference = (f(rows, rows[:, ::-1].copy(), mass_floor=mass_floor) for f in (divergences, by_numpy))
    np.testing.assert_allclose(full.max_abs_dlogp_mass, reference.max_abs_dlogp_mass, atol=1e-6)


# --- any rows ------------------------------------------------------------------------------------------------

logit = st.one_of(st.floats(-60, 60, width=32), st.just(-INF), st.sampled_from([0.0, 0.25, -200.0, -1e9]))


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 70).flatmap(lambda n: arrays(np.float32, (2, 1, n), elements=logit)))
def test_any_row_agrees_with_the_reference(pair):
    if np.isneginf(pair).all(axis=2).any():
        return
    check(*log_probabilities(*pair))


# --- what is read, and what is refused -----------------------------------------------------------------------


def test_rows_of_a_mapped_file_are_read_in_place(tmp_path, without_numpy):
    mu, pi = log_probabilities(normal(40, 20_000), normal(40, 20_000, seed=1))
    (tmp_path / "rows").write_bytes(b"head" + mu.tobytes())
    mapped = np.memmap(tmp_path / "rows", np.float32, "r", offset=4, shape=mu.shape)
    expected = divergences(mu, pi)
    tracemalloc.start()
    measured = divergences(mapped, pi, threads=2)  # each has some kilobytes of its own
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(measured.tv, expected.tv)
    assert peak < mu[0].nbytes


def test_rows_of_a_wider_block_are_read_in_place(without_numpy):
    mu, pi = log_probabilities(normal(9, 700), normal(9, 700, seed=1))
    wide = np.full((9, 900), np.nan, np.float32)
    wide[:, :700] = mu
    np.testing.assert_array_equal(divergences(wide[:, :700], pi).js, divergences(mu, pi).js)


def test_one_side_in_float64_is_measured_in_float64():
    mu, pi = log_probabilities(normal(4, 900), normal(4, 900, seed=1))
    measured, reference = divergences(mu.astype(float), pi), by_numpy(mu, pi)
    for name in NAMES:
        np.testing.assert_array_equal(getattr(measured, name), getattr(reference, name), err_msg=name)


def test_columns_are_measured_like_rows(without_numpy):
    mu, pi = log_probabilities(normal(4, 900), normal(4, 900, seed=1))
    measured, expected = divergences(np.asfortranarray(mu), pi), divergences(mu, pi)
    for name in NAMES:
        np.testing.assert_array_equal(getattr(measured, name), getattr(expected, name), err_msg=name)


@pytest.mark.parametrize("poison", [np.nan, INF])
@pytest.mark.parametrize("side", ["behaviour", "reference"])
@pytest.mark.parametrize("n_ids", [2, 700])
def test_nan_and_infinity_are_refused_by_row(backend, poison, side, n_ids):
    mu, pi = log_probabilities(normal(5, n_ids), normal(5, n_ids, seed=1))
    (mu if side == "behaviour" else pi)[3, 1] = poison
    with pytest.raises(ValueError, match=rf"row 3 of the {side} holds {poison} at id 1"):
        divergences(mu, pi)


@pytest.mark.parametrize("row", [np.nan, -INF, 100.0, 3e38, 1e-3])
def test_a_row_of_one_value_is_no_policy(backend, row):
    mu, pi = log_probabilities(normal(3, 600), normal(3, 600))
    pi[1] = row
    with pytest.raises(ValueError, match="row 1 of the reference"):
        divergences(mu, pi)


def test_the_tolerance_is_the_same_for_both(backend):
    mu, pi = log_probabilities(normal(3, 2000), normal(3, 2000))
    divergences(mu, pi + np.float32(0.9e-5))
    pi[2] += np.float32(1.1e-5)
    with pytest.raises(ValueError, match="row 2 of the reference log-probabilities is not normalised"):
        divergences(mu, pi)


def test_shapes_and_empty_input_are_errors(backend):
    with pytest.raises(ValueError, match="shapes must be the same"):
        divergences(normal(1, 2), normal(1, 3))
    for shape in ((0, 2), (2, 0)):
        with pytest.raises(EmptyComparisonError):
            divergences(normal(*shape), normal(*shape))
