"""The top-k interval always holds the exact value, and more ids never loosen it."""

from __future__ import annotations

import itertools
import math
from dataclasses import fields

import numpy as np
import pytest
from blocks import log_softmax
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mismatchscope.errors import EmptyComparisonError
from mismatchscope.measures import cells, kernel
from mismatchscope.measures.full import Divergences, divergences
from mismatchscope.measures.topk import TopkDivergences, topk_interval

SLACK = 1e-12
BOUNDS = [field.name for field in fields(TopkDivergences)]
# The fixture is the same for each example: it chooses the code under test.
few = settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def two_policies(draw: st.DrawFn) -> np.ndarray:
    """Log-probabilities [2, V], in mu's order, some of them outside a support."""
    pairs = draw(st.lists(st.tuples(st.floats(-12, 12), st.floats(-12, 12)), min_size=2, max_size=12))
    logits_2V = np.array(pairs).T
    for side in (0, 1):
        outside = draw(st.sets(st.integers(1, len(pairs) - 1), max_size=3))
        logits_2V[side, list(outside)] = -np.inf
    logp_2V = logits_2V - np.log(np.exp(logits_2V).sum(axis=1, keepdims=True))
    return logp_2V[:, np.argsort(-logp_2V[0], kind="stable")]


def tail_overlap(logp_2V: np.ndarray, k: int) -> float:
    """What mu and pi can share beyond mu's top k, if all that is known of mu there is its k-th largest value."""
    kth = math.exp(logp_2V[0, k - 1])
    return math.fsum(min(math.exp(logp), kth) for logp in logp_2V[1, k:])


def at_k(logp_2V: np.ndarray, k: int, *, full_pi: bool = False) -> TopkDivergences:
    overlap = [tail_overlap(logp_2V, k)] if full_pi else None
    return topk_interval(logp_2V[:1, :k], logp_2V[1:, :k], tail_overlap_T=overlap)


def exact(logp_2V: np.ndarray) -> Divergences:
    return divergences(logp_2V[:1], logp_2V[1:], normalised=True)


@few
@given(two_policies())
def test_the_interval_holds_the_exact_tv(backend: str, logp_2V: np.ndarray) -> None:
    tv = exact(logp_2V).tv[0]
    for k in range(1, logp_2V.shape[1] + 1):
        for full_pi in (False, True):
            interval = at_k(logp_2V, k, full_pi=full_pi)
            assert interval.tv_lower[0] - SLACK <= tv <= interval.tv_upper[0] + SLACK
            assert 0 <= interval.tv_lower[0] <= interval.tv_upper[0] <= 1 + SLACK


@few
@given(two_policies())
def test_data_processing_bounds_the_other_divergences_from_below(backend: str, logp_2V: np.ndarray) -> None:
    whole = exact(logp_2V)
    for k in range(1, logp_2V.shape[1] + 1):
        bound = at_k(logp_2V, k)
        assert 0 <= bound.kl_lower[0] <= whole.kl[0] * (1 + 1e-9) + SLACK
        assert 0 <= bound.reverse_kl_lower[0] <= whole.reverse_kl[0] * (1 + 1e-9) + SLACK
        assert 0 <= bound.js_lower[0] <= whole.js[0] + SLACK


@few
@given(two_policies())
def test_more_ids_never_loosen_a_bound(backend: str, logp_2V: np.ndarray) -> None:
    for full_pi in (False, True):
        steps = [at_k(logp_2V, k, full_pi=full_pi) for k in range(1, logp_2V.shape[1] + 1)]
        for coarse, fine in itertools.pairwise(steps):
            assert fine.tv_lower[0] >= coarse.tv_lower[0] - SLACK
            assert fine.tv_upper[0] <= coarse.tv_upper[0] + SLACK
            for name in ("kl_lower", "reverse_kl_lower", "js_lower"):
                assert getattr(fine, name)[0] >= getattr(coarse, name)[0] - 1e-9, name


@few
@given(two_policies())
def test_all_ids_give_the_exact_values(backend: str, logp_2V: np.ndarray) -> None:
    whole, observed = exact(logp_2V), at_k(logp_2V, logp_2V.shape[1])
    assert observed.tv_lower[0] == pytest.approx(whole.tv[0], abs=SLACK)
    assert observed.tv_upper[0] == pytest.approx(whole.tv[0], abs=SLACK)
    assert observed.kl_lower[0] == pytest.approx(whole.kl[0], rel=1e-12)
    assert observed.reverse_kl_lower[0] == pytest.approx(whole.reverse_kl[0], rel=1e-12)
    assert observed.js_lower[0] == pytest.approx(whole.js[0], rel=1e-12)


def test_the_formulas_on_a_worked_example(backend: str) -> None:
    mu, pi = [0.5, 0.2], [0.4, 0.1]  # tails 0.3 and 0.5
    interval = topk_interval(np.log([mu]), np.log([pi]))
    assert interval.tv_lower[0] == pytest.approx(0.5 * (0.1 + 0.1 + 0.2))
    assert interval.tv_upper[0] == pytest.approx(0.2 + 0.3)
    kl = 0.5 * math.log(0.5 / 0.4) + 0.2 * math.log(2) + 0.3 * math.log(0.3 / 0.5)
    assert interval.kl_lower[0] == pytest.approx(kl, abs=1e-6)

    # All of pi's tail on one id, where mu has at most 0.2: they share 0.2 there, not 0.3.
    tightened = topk_interval(np.log([mu]), np.log([pi]), tail_overlap_T=[0.2])
    assert tightened.tv_lower[0] == pytest.approx(0.3)
    assert tightened.tv_upper[0] == interval.tv_upper[0]


def test_one_observed_id_is_the_binary_tv(backend: str) -> None:
    interval = topk_interval(np.log([[0.7]]), np.log([[0.6]]))
    assert interval.tv_lower[0] == pytest.approx(0.1)
    assert interval.tv_upper[0] == pytest.approx(0.4)


def test_missing_entries_add_nothing(backend: str) -> None:
    short = topk_interval(np.log([[0.5, 0.2]]), np.log([[0.4, 0.1]]))
    filled = topk_interval(
        np.array([[math.log(0.5), np.nan, math.log(0.2)]]), np.array([[math.log(0.4), np.nan, math.log(0.1)]])
    )
    assert filled.tv_lower[0] == pytest.approx(short.tv_lower[0])
    assert filled.tv_upper[0] == pytest.approx(short.tv_upper[0])
    assert filled.kl_lower[0] == pytest.approx(short.kl_lower[0])


def test_a_tail_lost_to_rounding_does_not_make_kl_infinite(backend: str) -> None:
    logp_mu = np.log(np.array([[1 - 3e-7]])).astype(np.float32)
    logp_pi = np.zeros((1, 1), np.float32)
    interval = topk_interval(logp_mu, logp_pi)
    assert interval.kl_lower[0] < 1e-6
    assert interval.reverse_kl_lower[0] < 1e-6


def test_an_observed_id_outside_the_other_support_is_infinitely_far(backend: str) -> None:
    interval = topk_interval(np.array([[math.log(0.9), math.log(0.1)]]), np.array([[math.log(0.9), -np.inf]]))
    assert interval.kl_lower[0] == np.inf
    assert np.isfinite(interval.reverse_kl_lower[0])
    assert interval.tv_lower[0] == pytest.approx(0.1)


def test_chunks_agree_with_one_block(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    logits_2TV = np.random.default_rng(0).normal(0, 2, (2, 30, 12))
    logp_2TV = logits_2TV - np.log(np.exp(logits_2TV).sum(axis=-1, keepdims=True))
    mu_TK, pi_TK = logp_2TV[:, :, :6]
    whole = topk_interval(mu_TK, pi_TK)
    monkeypatch.setattr(cells, "CHUNK_BYTES", 8 * 14 * 6 * 7)
    by_chunks = topk_interval(mu_TK, pi_TK)
    for name in ("tv_lower", "tv_upper", "kl_lower", "js_lower"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(by_chunks, name))


@pytest.mark.parametrize(
    ("mu", "pi", "why"),
    [
        ([-1.0, np.nan], [-1.0, -2.0], "NaN on one side"),
        ([-1.0, -2.0], [-1.0, np.inf], "inf"),
        ([-0.1, -0.1], [-1.0, -2.0], "behaviour probabilities of distinct ids sum to more than one"),
        ([-1.0, -2.0], [-0.1, -0.1], "reference probabilities"),
        ([900.0, -2.0], [-1.0, -2.0], "behaviour probabilities"),
        ([-1.0, -2.0], [1.5, -2.0], "reference probabilities"),
    ],
)
def test_bad_rows_are_refused_by_number(backend: str, mu: list[float], pi: list[float], why: str) -> None:
    fine = [-1.0, -2.0]
    with pytest.raises(ValueError, match=f"row 1.*{why}"):
        topk_interval([fine, mu], [fine, pi])


def test_empty_input_and_bad_overlaps_are_errors(backend: str) -> None:
    with pytest.raises(EmptyComparisonError):
        topk_interval(np.zeros((0, 4)), np.zeros((0, 4)))
    with pytest.raises(EmptyComparisonError, match="Row 1"):
        topk_interval([[-1.0], [np.nan]], [[-1.0], [np.nan]])
    with pytest.raises(ValueError, match="expected two arrays"):
        topk_interval(np.zeros((1, 2)), np.zeros((1, 3)))
    with pytest.raises(ValueError, match="overlap"):
        topk_interval([[-1.0]], [[-1.0]], tail_overlap_T=[np.nan])
    with pytest.raises(ValueError, match="overlap"):
        topk_interval([[-1.0]], [[-1.0]], tail_overlap_T=[0.1, 0.2])


def test_rows_that_lie_apart_or_in_float32_are_measured_like_any(backend: str) -> None:
    logits_2TV = np.random.default_rng(1).normal(0, 2, (2, 40, 12)).astype(np.float32)
    mu_TK, pi_TK = log_softmax(logits_2TV)[:, :, :6]
    whole = topk_interval(mu_TK.astype(np.float64), pi_TK.astype(np.float64))
    for form in (np.asfortranarray, lambda rows: np.repeat(rows, 2, axis=1)[:, ::2], lambda rows: rows):
        measured = topk_interval(form(mu_TK), form(pi_TK))
        for name in BOUNDS:
            np.testing.assert_array_equal(getattr(measured, name), getattr(whole, name), err_msg=name)


def test_identical_policies_are_exactly_zero_apart(backend: str) -> None:
    mu_TK = log_softmax(np.random.default_rng(1).normal(0, 2, (40, 12)))[:, :6]
    same = topk_interval(mu_TK, mu_TK.copy())
    for name in ("tv_lower", "kl_lower", "reverse_kl_lower", "js_lower"):
        assert np.all(getattr(same, name) == 0), name


@few
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1e-8, 1e-4, 0.02, 0.9, 1.1, 30.0, 400.0]))
def test_both_paths_give_the_same_figures(compiled_kernel: None, seed: int, noise: float) -> None:
    rng = np.random.default_rng(seed)
    logits_2TV = np.stack([rng.normal(0, 3, (5, 20))] * 2)
    logits_2TV[1] += noise * rng.normal(size=(5, 20))
    logits_2TV[rng.random((2, 5, 20)) < 0.1] = rng.choice([-np.inf, -1e4, -800.0])
    logits_2TV[:, :, 0] = 1.0
    mu_TK, pi_TK = log_softmax(logits_2TV)[:, :, :15]
    missing_TK = rng.random((5, 15)) < 0.2
    missing_TK[:, 0] = False
    mu_TK[missing_TK] = pi_TK[missing_TK] = np.nan
    by_kernel = topk_interval(mu_TK, pi_TK)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel, "library", lambda: None)
        by_numpy = topk_interval(mu_TK, pi_TK)
    for name in BOUNDS:
        values, expected = getattr(by_kernel, name), getattr(by_numpy, name)
        # A tail is one less a sum: of the smallest tail, 1e-6, the last digits are 1e-10, and KL takes logarithms.
        np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-15, err_msg=name)
