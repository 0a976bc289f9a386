"""The bounds against their published figures, and against the exact error on small random policies."""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mismatchscope.measures.bounds import finite_horizon_bounds, with_policies
from mismatchscope.measures.positions import PositionSums
from mismatchscope.measures.results import Bounds
from mismatchscope.measures.sequence_sums import SequenceSums


def ratio_pair_sums(log_ratio, offsets) -> np.ndarray:
    return SequenceSums.of(log_ratio, offsets).ratio_pairs


KINDS = ("classical", "pinsker", "mixed", "coupling", "adaptive", "max_free")


def test_the_published_check_values() -> None:
    b = finite_horizon_bounds(4096, max_tv=5e-3, max_kl=1e-4, sequence_kl=0.01, sequence_tv=0.05)
    assert b.classical_kl == pytest.approx(1677, abs=0.5)
    assert b.classical_tv == pytest.approx(839, abs=0.5)
    assert b.pinsker_marginal_kl == pytest.approx(35.0, abs=0.1)
    assert b.mixed_kl == pytest.approx(8.2, abs=0.05)
    assert b.mixed_tv == pytest.approx(4.1, abs=0.05)
    known = {name: value for name, value in asdict(b).items() if isinstance(value, float)}
    assert min(known, key=known.__getitem__) == "mixed_tv"
    assert b.max_free_linear is b.max_free_quadratic is None


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.floats(0.02, 3), st.integers(1, 4))
def test_every_bound_holds_on_random_policies(seed: int, distance: float, horizon: int) -> None:
    """All sequences of two ids: J(pi), the surrogate at mu and every ingredient of the bounds, exactly."""
    rng = np.random.default_rng(seed)
    contexts = [c for t in range(horizon) for c in itertools.product((0, 1), repeat=t)]
    logits = {c: rng.normal(0, 1.5, 2) for c in contexts}
    mu = {c: np.exp(x) / np.exp(x).sum() for c, x in logits.items()}
    moved = {c: np.exp(x + rng.normal(0, distance, 2)) for c, x in logits.items()}
    pi = {c: p / p.sum() for c, p in moved.items()}
    tv = {c: float(np.abs(mu[c] - pi[c]).sum() / 2) for c in contexts}
    kl = {c: float(mu[c] @ np.log(mu[c] / pi[c])) for c in contexts}

    sequences = list(itertools.product((0, 1), repeat=horizon))
    mu_y = np.array([math.prod(mu[y[:t]][y[t]] for t in range(horizon)) for y in sequences])
    pi_y = np.array([math.prod(pi[y[:t]][y[t]] for t in range(horizon)) for y in sequences])
    log_ratio_ST = np.array(
        [[math.log(pi[y[:t]][y[t]] / mu[y[:t]][y[t]]) for t in range(horizon)] for y in sequences]
    )
    reward_S = rng.integers(0, 2, len(sequences)).astype(float)

    def error_of(reward_S: np.ndarray) -> float:
        surrogate = mu_y @ (reward_S * (1 + np.expm1(log_ratio_ST).sum(axis=1)))
        return abs(pi_y @ reward_S - surrogate)

    pair_sums_S = ratio_pair_sums(log_ratio_ST.ravel(), np.arange(len(sequences) + 1) * horizon)
    bounds = finite_horizon_bounds(
        horizon,
        max_tv=max(tv.values()),
        max_kl=max(kl.values()),
        sequence_tv=float(np.abs(mu_y - pi_y).sum() / 2),
        sequence_kl=float(mu_y @ np.log(mu_y / pi_y)),
        mean_tv_T=[mu_y @ [tv[y[:t]] for y in sequences] for t in range(horizon)],
    )
    family = {name: value for name, value in asdict(bounds).items() if name.startswith(KINDS)}
    tv_ST = np.array([[tv[y[:t]] for t in range(horizon)] for y in sequences])
    family |= {
        "max_free_linear": 4 * float(mu_y @ tv_ST.sum(axis=1)),
        "max_free_quadratic": 2 * float(mu_y @ pair_sums_S),
    }
    assert len(family) == 10
    for name, value in family.items():
        assert value is not None, name
        assert error_of(2 * reward_S - 1) <= value + 1e-12, name  # rewards of −1 and 1
        assert error_of(reward_S) <= value / 2 + 1e-12, name  # of 0 and 1


def test_the_formulas_term_by_term() -> None:
    e, k, mean_tv = 0.3, 0.9, [0.1, 0.2, 0.05]
    b = finite_horizon_bounds(3, max_tv=e, max_kl=k, mean_tv_T=mean_tv)
    half = math.sqrt(k / 2)
    assert b.coupling == pytest.approx(4 * e * (0 + e + 2 * e))
    assert b.pinsker_marginal_kl == pytest.approx(4 * half * (half + math.sqrt(k)))
    assert b.pinsker_marginal_tv == pytest.approx(4 * e * (half + math.sqrt(k)))
    assert b.adaptive == pytest.approx(4 * (0.1 * min(2 * e, math.sqrt(k)) + 0.2 * min(e, half)))
    assert b.mixed_tv is b.mixed_kl is None


def test_the_factors_saturate_at_one() -> None:
    b = finite_horizon_bounds(5, max_tv=1.0, max_kl=math.inf, sequence_tv=1.0, sequence_kl=math.inf)
    assert b.pinsker_marginal_tv == b.coupling == 4 * 4
    assert b.mixed_tv == b.mixed_kl == 4 * 5
    assert b.classical_kl == math.inf


def test_one_token_has_no_second_order_error() -> None:
    b = finite_horizon_bounds(1, max_tv=0.5, max_kl=math.inf, mean_tv_T=[0.5])
    assert b.classical_tv == b.coupling == b.adaptive == 0


def test_bad_figures_are_refused() -> None:
    with pytest.raises(ValueError, match="horizon"):
        finite_horizon_bounds(0)
    with pytest.raises(ValueError, match="max_tv"):
        finite_horizon_bounds(2, max_tv=math.nan)
    with pytest.raises(ValueError, match="sequence_kl"):
        finite_horizon_bounds(2, sequence_kl=-1.0)
    with pytest.raises(ValueError, match="2 values"):
        finite_horizon_bounds(2, mean_tv_T=[0.1])


def test_mean_tv_by_position_counts_ended_sequences_as_zero() -> None:
    sums = PositionSums()
    sums.add(np.array([0.1, 0.2, 0.3]), np.arange(3), 1)
    other = PositionSums()
    other.add(np.array([0.5]), np.arange(1), 1)
    sums.merge(other)
    np.testing.assert_allclose(sums.mean(4), [0.3, 0.1, 0.15, 0.0])


@given(st.lists(st.floats(-2, 2), min_size=1, max_size=8))
def test_ratio_pair_sums_match_a_double_loop(log_ratio: list[float]) -> None:
    ratio = [math.exp(d) for d in log_ratio]
    oracle = math.fsum(abs(ratio[t] - 1) * max(0.0, 1 - ratio[j]) for j in range(len(ratio)) for t in range(j))
    assert ratio_pair_sums([0.3, *log_ratio], [0, 1, 1 + len(log_ratio)])[1] == pytest.approx(oracle)


def test_an_overflowing_ratio_is_infinite_only_where_it_counts() -> None:
    assert ratio_pair_sums([800.0, 0.0], [0, 2])[0] == 0
    assert ratio_pair_sums([800.0, -1.0], [0, 2])[0] == np.inf


def test_the_check_values_are_vacuous_at_that_length() -> None:
    found = finite_horizon_bounds(4096, max_tv=5e-3, max_kl=1e-4, sequence_kl=0.01, sequence_tv=0.05)
    every = with_policies(found, discount=None, advantage_max=None)
    assert set(every.vacuous) == {
        "classical_tv",
        "classical_kl",
        "pinsker_marginal_tv",
        "pinsker_marginal_kl",
        "mixed_tv",
        "mixed_kl",
        "coupling",
    }
    short = finite_horizon_bounds(16, max_tv=5e-3, max_kl=1e-4, sequence_kl=1e-3, sequence_tv=0.01)
    assert with_policies(short, discount=None, advantage_max=None).vacuous == ()


def test_the_discounted_bounds_hold_on_random_decision_processes() -> None:
    """J, the surrogate at mu and the largest TVs exactly, of 200 processes with three states and three policies."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        gamma, distance = float(rng.uniform(0.1, 0.95)), float(rng.uniform(0.05, 2))
        moves_SAS, reward_SA = rng.dirichlet(np.ones(3), (3, 2)), rng.uniform(-1, 1, (3, 2))
        logits_SA = rng.normal(0, 1, (3, 2))
        mu, old, theta = (
            np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
            for x in (logits_SA, *(logits_SA + rng.normal(0, distance, (2, 3, 2))))
        )
        start_S = np.full(3, 1 / 3)

        def value_of(policy_SA, moves_SAS=moves_SAS, reward_SA=reward_SA, gamma=gamma):
            step_SS = np.einsum("sa,sat->st", policy_SA, moves_SAS)
            return np.linalg.solve(np.eye(3) - gamma * step_SS, (policy_SA * reward_SA).sum(axis=1))

        value_S = value_of(mu)
        advantage_SA = reward_SA + gamma * moves_SAS @ value_S - value_S[:, None]
        visits_S = np.linalg.solve(np.eye(3) - gamma * np.einsum("sa,sat->st", mu, moves_SAS).T, start_S)
        surrogate = start_S @ value_S + visits_S @ (theta * advantage_SA).sum(axis=1)
        gap = abs(start_S @ value_of(theta) - surrogate)

        def largest(p, q):
            return float(np.abs(p - q).sum(axis=1).max() / 2)

        found = with_policies(
            Bounds(),
            discount=gamma,
            advantage_max=float(np.abs(advantage_SA).max()),
            alpha0=largest(old, theta),
            alpha1=largest(mu, old),
            beta=largest(mu, theta),
        )
        assert gap <= found.two_policies_lower + 1e-12
        assert found.two_policies_lower <= found.three_policies_lower + 1e-12
        assert found.factor == pytest.approx(2 * found.advantage_max * gamma / (1 - gamma) ** 2)


def test_without_a_third_policy_there_is_one_distance() -> None:
    found = with_policies(Bounds(), discount=0.9, advantage_max=1.0, alpha1=0.01)
    assert found.two_policies_lower == pytest.approx(2 * 0.9 / 0.01 * 0.01)
    assert found.three_policies_lower is None
    assert with_policies(Bounds(), discount=0.99, advantage_max=1.0, alpha1=0.5).vacuous == ("two_policies_lower",)


@pytest.mark.parametrize("given", [(1.0, 1.0), (-0.1, 1.0), (0.9, -1.0), (0.9, math.inf), (0.9, None), (None, 1.0)])
def test_bad_discounts_and_advantages_are_refused(given: tuple[float | None, float | None]) -> None:
    with pytest.raises(ValueError, match=r"discount|advantage"):
        with_policies(Bounds(), discount=given[0], advantage_max=given[1], alpha1=0.1)
