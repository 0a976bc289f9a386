"""Accumulators against the whole arrays, whatever the chunks and their order."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mismatchscope.errors import NotComparableError
from mismatchscope.measures.accumulators import (
    ClusterExceedance,
    Clusters,
    ClusterSums,
    Covariance,
    paired,
)
from mismatchscope.measures.intervals import clustered_mean

TAUS = (0.01, 0.1, 0.5)


def sequences(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(value of each token, length and prompt of each sequence)."""
    rng = np.random.default_rng(seed)
    length_S = rng.integers(1, 8, rng.integers(2, 30))
    return rng.beta(0.2, 3, length_S.sum()), length_S, rng.integers(0, 9, len(length_S)) * 7 - 5


def pieces(seed: int, length_S: np.ndarray) -> list[np.ndarray]:
    """The sequences in random groups, in random order."""
    rng = np.random.default_rng([1, seed])
    order_S = rng.permutation(len(length_S))
    return [part for part in np.array_split(order_S, rng.integers(1, 6)) if len(part)]


def tokens_of(part: np.ndarray, value_N: np.ndarray, length_S: np.ndarray) -> list[np.ndarray]:
    start_S = np.cumsum(length_S) - length_S
    return [value_N[start_S[s] : start_S[s] + length_S[s]] for s in part]


def filled(seed: int, *, merge: bool) -> tuple[ClusterSums, ClusterExceedance]:
    """From pieces in random order: one accumulator after another, or one each, merged at the end."""
    value_N, length_S, prompt_S = sequences(seed)
    clusters, sums, exceedance = Clusters(), ClusterSums(), ClusterExceedance(TAUS)
    for part in pieces(seed, length_S):
        into = (Clusters(), ClusterSums(), ClusterExceedance(TAUS)) if merge else (clusters, sums, exceedance)
        tokens = tokens_of(part, value_N, length_S)
        row_S, flat_N = into[0].rows(prompt_S[part]), np.concatenate(tokens)
        start_S = np.cumsum(length_S[part]) - length_S[part]
        into[1].add(row_S, np.add.reduceat(flat_N, start_S), length_S[part], flat_N)
        into[2].add(row_S, start_S, flat_N)
        if merge:
            row_C = clusters.rows(into[0].labels)
            sums.merge(into[1], row_C)
            exceedance.merge(into[2], row_C)
    return sums, exceedance


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_means_are_those_of_the_whole_array(seed: int, merge: bool) -> None:
    value_N, length_S, prompt_S = sequences(seed)
    expected = clustered_mean(value_N, np.repeat(prompt_S, length_S), bounds=(0.0, 1.0))
    found = filled(seed, merge=merge)[0].interval(bounds=(0.0, 1.0))
    assert (found.n, found.clusters, found.method) == (expected.n, expected.clusters, expected.method)
    for end in ("value", "low", "high"):
        wanted = getattr(expected, end)
        assert getattr(found, end) == (None if wanted is None else pytest.approx(wanted, rel=1e-9))


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_exceedances_are_those_of_the_whole_array(seed: int, merge: bool) -> None:
    value_N, length_S, prompt_S = sequences(seed)
    prompt_N = np.repeat(prompt_S, length_S)
    max_C, beyond_CT = filled(seed, merge=merge)[1].seen()
    expected = [
        (value_N[prompt_N == prompt].max(), *((value_N[prompt_N == prompt] > tau).sum() for tau in TAUS))
        for prompt in set(prompt_S.tolist())
    ]
    assert sorted(zip(max_C.tolist(), *beyond_CT.T.tolist(), strict=True)) == sorted(expected)


def test_a_value_on_a_threshold_is_not_beyond_it() -> None:
    exceedance = ClusterExceedance((0.1, 0.5))
    exceedance.add(np.array([0]), np.array([0]), np.array([0.1, 0.5, 0.6]))
    assert exceedance.seen()[1].tolist() == [[2, 1]]


def test_sums_of_the_same_tokens_are_paired_by_cluster() -> None:
    """Whatever room either has made for more clusters, and without those that have no value."""
    prompt_N = np.array([0, 0, 2, 5, 5, 5])
    a, b = ClusterSums(), ClusterSums()
    a.add(prompt_N, np.arange(6.0), np.ones(6, dtype=int), np.arange(6.0))
    for n in range(6):
        b.add(prompt_N[n : n + 1], np.array([1.0]), np.array([1]), np.array([1.0]))
    sum_a_C, sum_b_C, count_C = paired(a, b)
    assert (sum_a_C.tolist(), sum_b_C.tolist(), count_C.tolist()) == ([1, 2, 12], [2, 1, 3], [2, 1, 3])


def test_sums_of_other_tokens_are_not_paired() -> None:
    with pytest.raises(NotComparableError, match="same tokens"):
        paired(*(ClusterSums.of(np.zeros(n), np.zeros(n, dtype=int)) for n in (2, 3)))


def test_infinite_values_and_none() -> None:
    sums = ClusterSums.of(np.array([0.0, np.inf]), np.array([0, 1]))
    assert (sums.mean, sums.interval().value, sums.interval().method) == (np.inf, np.inf, "infinite")
    assert math.isnan(ClusterSums().mean)
    with pytest.raises(NotComparableError, match="both"):
        ClusterSums.of(np.array([-np.inf, np.inf]), np.array([0, 1])).interval()


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_covariance_is_that_of_the_whole_array(seed: int, merge: bool) -> None:
    rng = np.random.default_rng(seed)
    x_N = rng.normal(1e3, 1, 60)
    y_N = 2 * x_N + rng.normal(0, 1, 60)
    covariance = Covariance()
    for part in np.array_split(rng.permutation(60), 5):
        if merge:
            one = Covariance()
            one.add(x_N[part], y_N[part])
            covariance.merge(one)
        else:
            covariance.add(x_N[part], y_N[part])
    assert covariance.slope == pytest.approx(np.polyfit(x_N, y_N, 1)[0], rel=1e-6)
    assert covariance.correlation == pytest.approx(np.corrcoef(x_N, y_N)[0, 1], rel=1e-9)


def test_pearson_correlation_is_that_of_probabilities() -> None:
    rng = np.random.default_rng(0)
    logp_mu_T = -rng.exponential(2, 200)
    logp_pi_T = np.minimum(logp_mu_T + rng.normal(0, 0.2, 200), 0)
    mu, pi = np.exp(logp_mu_T), np.exp(logp_pi_T)
    product = math.fsum((mu - mu.mean()) * (pi - pi.mean()))
    oracle = product / math.sqrt(math.fsum((mu - mu.mean()) ** 2) * math.fsum((pi - pi.mean()) ** 2))
    covariance = Covariance()
    covariance.add(mu, pi)
    assert covariance.correlation == pytest.approx(oracle, rel=1e-12)


def test_pearson_correlation_of_a_constant_is_unknown() -> None:
    for x, y in (([0.5, 0.5], [0.5, 0.4]), ([0.5], [0.5])):
        covariance = Covariance()
        covariance.add(np.array(x), np.array(y))
        assert math.isnan(covariance.correlation)
