"""The top-k interval always holds the exact value, and more ids never loosen it."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mismatchscope.errors import EmptyComparisonError
from mismatchscope.measures import cells
from mismatchscope.measures.divergences import FullDivergences, full_divergences
from mismatchscope.measures.topk import TopkDivergences, topk_interval

SLACK = 1e-12
few = settings(max_examples=50)


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


def exact(logp_2V: np.ndarray) -> FullDivergences:
    return full_divergences(logp_2V[:1], logp_2V[1:])


@few
@given(two_policies())
def test_the_interval_holds_the_exact_tv(logp_2V: np.ndarray) -> None:
    tv = exact(logp_2V).tv[0]
    for k in range(1, logp_2V.shape[1] + 1):
        for full_pi in (False, True):
            interval = at_k(logp_2V, k, full_pi=full_pi)
            assert interval.tv_lower[0] - SLACK <= tv <= interval.tv_upper[0] + SLACK
            assert 0 <= interval.tv_lower[0] <= interval.tv_upper[0] <= 1 + SLACK


@few
@given(two_policies())
def test_data_processing_bounds_the_other_divergences_from_below(logp_2V: np.ndarray) -> None:
    whole = exact(logp_2V)
    for k in range(1, logp_2V.shape[1] + 1):
        bound = at_k(logp_2V, k)
        assert 0 <= bound.kl_lower[0] <= whole.kl[0] * (1 + 1e-9) + SLACK
        assert 0 <= bound.reverse_kl_lower[0] <= whole.reverse_kl[0] * (1 + 1e-9) + SLACK
        assert 0 <= bound.js_lower[0] <= whole.js[0] + SLACK


@few
@given(two_policies())
def test_more_ids_never_loosen_a_bound(logp_2V: np.ndarray) -> None:
    for full_pi in (False, True):
        steps = [at_k(logp_2V, k, full_pi=full_pi) for k in range(1, logp_2V.shape[1] + 1)]
        for coarse, fine in itertools.pairwise(steps):
            assert fine.tv_lower[0] >= coarse.tv_lower[0] - SLACK
            assert fine.tv_upper[0] <= coarse.tv_upper[0] + SLACK
            for name in ("kl_lower", "reverse_kl_lower", "js_lower"):
                assert getattr(fine, name)[0] >= getattr(coarse, name)[0] - 1e-9, name


@few
@given(two_policies())
def test_all_ids_give_the_exact_values(logp_2V: np.ndarray) -> None:
    whole, observed = exact(logp_2V), at_k(logp_2V, logp_2V.shape[1])
    assert observed.tv_lower[0] == pytest.approx(whole.tv[0], abs=SLACK)
    assert observed.tv_upper[0] == pytest.approx(whole.tv[0], abs=SLACK)
    assert observed.kl_lower[0] == pytest.approx(whole.kl[0], rel=1e-12)
    assert observed.reverse_kl_lower[0] == pytest.approx(whole.reverse_kl[0], rel=1e-12)
    assert observed.js_lower[0] == pytest.approx(whole.js[0], rel=1e-12)


@few
@given(two_policies())
def test_top1_agreement_is_never_wrong_where_it_is_decided(logp_2V: np.ndarray) -> None:
    for k in range(1, logp_2V.shape[1] + 1):
        decided = at_k(logp_2V, k).top1_agree[0]
        pi_V = np.exp(logp_2V[1])
        if decided == 1:
            assert pi_V[0] == pi_V.max()
        elif decided == 0:
            assert pi_V[0] < pi_V.max()
        else:
            assert math.isnan(decided)


def test_the_formulas_on_a_worked_example() -> None:
    mu, pi = [0.5, 0.2], [0.4, 0.1]  # tails 0.3 and 0.5
    interval = topk_interval(np.log([mu]), np.log([pi]))
    assert interval.tv_lower[0] == pytest.approx(0.5 * (0.1 + 0.1 + 0.2))
    assert interval.tv_upper[0] == pytest.approx(0.2 + 0.3)
    assert (interval.tail_mu[0], interval.tail_pi[0]) == (pytest.approx(0.3), pytest.approx(0.5))
    kl = 0.5 * math.log(0.5 / 0.4) + 0.2 * math.log(2) + 0.3 * math.log(0.3 / 0.5)
    assert interval.kl_lower[0] == pytest.approx(kl, abs=1e-6)
    assert math.isnan(interval.top1_agree[0])

    # All of pi's tail on one id, where mu has at most 0.2: they share 0.2 there, not 0.3.
    tightened = topk_interval(np.log([mu]), np.log([pi]), tail_overlap_T=[0.2])
    assert tightened.tv_lower[0] == pytest.approx(0.3)
    assert tightened.tv_upper[0] == interval.tv_upper[0]


def test_one_observed_id_is_the_binary_tv() -> None:
    interval = topk_interval(np.log([[0.7]]), np.log([[0.6]]))
    assert interval.tv_lower[0] == pytest.approx(0.1)
    assert interval.tv_upper[0] == pytest.approx(0.4)


def test_missing_entries_add_nothing() -> None:
    short = topk_interval(np.log([[0.5, 0.2]]), np.log([[0.4, 0.1]]))
    filled = topk_interval(
        np.array([[math.log(0.5), np.nan, math.log(0.2)]]), np.array([[math.log(0.4), np.nan, math.log(0.1)]])
    )
    assert filled.tv_lower[0] == pytest.approx(short.tv_lower[0])
    assert filled.tail_mu[0] == pytest.approx(short.tail_mu[0])


def test_a_tail_lost_to_rounding_does_not_make_kl_infinite() -> None:
    logp_mu = np.log(np.array([[1 - 3e-7]])).astype(np.float32)
    logp_pi = np.zeros((1, 1), np.float32)
    interval = topk_interval(logp_mu, logp_pi)
    assert interval.kl_lower[0] < 1e-6
    assert interval.reverse_kl_lower[0] < 1e-6


def test_an_observed_id_outside_the_other_support_is_infinitely_far() -> None:
    interval = topk_interval(np.array([[math.log(0.9), math.log(0.1)]]), np.array([[math.log(0.9), -np.inf]]))
    assert interval.kl_lower[0] == np.inf
    assert np.isfinite(interval.reverse_kl_lower[0])
    assert interval.tv_lower[0] == pytest.approx(0.1)


def test_chunks_agree_with_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    logits_2TV = np.random.default_rng(0).normal(0, 2, (2, 30, 12))
    logp_2TV = logits_2TV - np.log(np.exp(logits_2TV).sum(axis=-1, keepdims=True))
    mu_TK, pi_TK = logp_2TV[:, :, :6]
    whole = topk_interval(mu_TK, pi_TK)
    monkeypatch.setattr(cells, "CHUNK_BYTES", 8 * 14 * 6 * 7)
    by_chunks = topk_interval(mu_TK, pi_TK)
    for name in ("tv_lower", "tv_upper", "kl_lower", "top1_agree"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(by_chunks, name))


@pytest.mark.parametrize(
    ("mu", "pi", "why"),
    [
        ([-1.0, np.nan], [-1.0, -2.0], "NaN on one side"),
        ([-1.0, -2.0], [-1.0, np.inf], "inf"),
        ([-0.1, -0.1], [-1.0, -2.0], "behaviour probabilities of distinct ids sum to more than one"),
        ([-1.0, -2.0], [-0.1, -0.1], "reference probabilities"),
    ],
)
def test_bad_rows_are_refused_by_number(mu: list[float], pi: list[float], why: str) -> None:
    fine = [-1.0, -2.0]
    with pytest.raises(ValueError, match=f"row 1.*{why}"):
        topk_interval([fine, mu], [fine, pi])


def test_empty_input_and_bad_overlaps_are_errors() -> None:
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
