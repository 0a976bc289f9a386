"""Statistics of samples: what they do not depend on, and that their intervals are of sequences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import linregress

from mismatchscope.diagnosis.evidence import Floor, TokenEvidence
from mismatchscope.diagnosis.sample import Sample
from mismatchscope.diagnosis.statistics import function, grouping, position, size
from mismatchscope.diagnosis.statistics.lost_mass import rarest_against_lost
from mismatchscope.diagnosis.statistics.stat import Stat, ratio_of_sums, regression, share

MEASURES = (
    size.gap,
    size.tail,
    size.at_floor,
    size.mean_ratio,
    size.energy_below,
    size.rank_with_probability,
    size.far_runs,
    position.growth,
    position.first_token,
    function.of_tokens,
    function.of_previous,
    grouping.of_sequences,
    rarest_against_lost,
)


def drawn(seed: int, sequences: int = 14) -> TokenEvidence:
    """Sequences of several lengths, and a gap that is larger in some of them."""
    rng = np.random.default_rng(seed)
    length_S = rng.integers(10, 30, sequences)
    tokens = int(length_S.sum())
    mu_N = -rng.exponential(size=tokens)
    off_N = np.repeat(rng.uniform(0.01, 0.2, sequences), length_S)
    token_N = rng.integers(0, 20, tokens)
    position_N = np.concatenate([np.arange(length) for length in length_S])
    return TokenEvidence(
        mu_N,
        np.minimum(mu_N + off_N * rng.normal(size=tokens), 0.0),
        np.repeat(np.arange(sequences), length_S),
        position_N,
        np.arange(sequences),
        token_N=token_N,
        previous_N=np.where(position_N > 0, np.roll(token_N, 1), -1),
        floor=Floor(0.02, "third party"),
    )


def reordered(evidence: TokenEvidence, order: np.ndarray) -> TokenEvidence:
    """The same sequences, in this order."""
    places = [np.flatnonzero(evidence.sequence_N == s) for s in order]
    rows = np.concatenate(places)
    by_token = {
        name: getattr(evidence, name)[rows]
        for name in ("logp_mu_N", "logp_pi_N", "position_N", "token_N", "previous_N")
    }
    sequence_N = np.repeat(np.arange(len(order)), [len(each) for each in places])
    return evidence.but(**by_token, sequence_N=sequence_N, prompt_S=evidence.prompt_S[order])


def flat(value: Any) -> list[float]:
    if isinstance(value, tuple):
        return [number for each in value for number in flat(each)]
    return [np.nan if value is None else float(value)]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_the_order_of_sequences_does_not_matter(seed: int) -> None:
    evidence = drawn(seed)
    order = np.random.default_rng(seed).permutation(evidence.sequences)
    one, other = Sample.of(evidence), Sample.of(reordered(evidence, order))
    for measure in MEASURES:
        np.testing.assert_allclose(flat(measure(one)), flat(measure(other)), rtol=1e-8, atol=1e-10)  # type: ignore[arg-type]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 10))
def test_r_is_in_floors(seed: int, times: float) -> None:
    evidence = drawn(seed)
    assert evidence.floor is not None
    larger = evidence.but(floor=Floor(times * evidence.floor.value, "repeat"))
    one, other = size.gap(Sample.of(evidence)), size.gap(Sample.of(larger))
    np.testing.assert_allclose(flat(one)[:3], times * np.array(flat(other)[:3]), rtol=1e-9)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_a_token_said_twice_is_no_evidence(seed: int) -> None:
    """Twice the tokens of the same sequences leave the interval as it is, as an interval over tokens would not."""
    evidence = drawn(seed)
    twice = {
        name: np.repeat(getattr(evidence, name), 2)
        for name in ("logp_mu_N", "logp_pi_N", "sequence_N", "position_N", "token_N", "previous_N")
    }
    one, other = size.gap(Sample.of(evidence)), size.gap(Sample.of(evidence.but(**twice)))
    np.testing.assert_allclose(flat(one)[:3], flat(other)[:3], rtol=1e-9)
    assert other.n == 2 * one.n


@given(st.lists(st.tuples(st.floats(-5, 5), st.integers(1, 9)), min_size=2, max_size=12))
def test_a_ratio_of_sums_is_within_its_interval(pairs: list[tuple[float, int]]) -> None:
    sum_C, count_C = (np.array(each, dtype=np.float64) for each in zip(*pairs, strict=True))
    stat = ratio_of_sums(sum_C, count_C)
    assert stat.value == pytest.approx(sum_C.sum() / count_C.sum())
    assert stat.low is not None and stat.high is not None and stat.low <= stat.value <= stat.high


def test_one_cluster_has_no_interval() -> None:
    assert ratio_of_sums(np.array([3.0]), np.array([4.0])) == Stat(0.75, None, None, 4)


@given(st.integers(0, 50), st.integers(1, 50))
def test_wilsons_interval_is_within_zero_and_one_and_has_the_share(count: int, more: int) -> None:
    stat = share(count, count + more)
    assert stat.value is not None and stat.low is not None and stat.high is not None
    assert 0 <= stat.low <= stat.value <= stat.high <= 1


def test_equal_tokens_with_equal_gaps_are_a_function_of_the_token() -> None:
    rng = np.random.default_rng(3)
    evidence = drawn(3, sequences=60)
    assert evidence.token_N is not None
    delta_N = 0.3 * rng.normal(size=20)[evidence.token_N] * (1 - np.exp(evidence.logp_mu_N))
    off = evidence.but(logp_mu_N=evidence.logp_mu_N - 1.0, logp_pi_N=evidence.logp_mu_N - 1.0 + delta_N)
    assert function.of_tokens(Sample.of(off)).above(0.6)
    assert function.of_previous(Sample.of(off)).below(0.2)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-5, 5), st.floats(-5, 5)), min_size=3, max_size=30))
def test_a_regression_is_that_of_scipy(points: list[tuple[int, float]]) -> None:
    x, y = np.array(points, dtype=np.float64).T
    slope, error = regression(x, y)
    if not np.ptp(x):
        assert (slope, error) == (0.0, np.inf)
        return
    expected = linregress(x, y)
    assert slope == pytest.approx(expected.slope, abs=1e-9)
    assert error == pytest.approx(np.nan_to_num(expected.stderr), rel=1e-6, abs=1e-7)  # NaN of a y that is constant
