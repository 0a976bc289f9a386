"""A sampler's transforms, each against a loop that a textbook would have."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mismatchscope.measures import sampler

logits = st.lists(st.floats(-12, 12), min_size=2, max_size=12, unique_by=lambda value: round(value, 6))


def softmax(logit_V: list[float]) -> list[float]:
    top = max(logit_V)
    weights = [math.exp(value - top) for value in logit_V]
    return [weight / math.fsum(weights) for weight in weights]


def textbook(logit_V: list[float], *, min_p: float, top_k: int, top_p: float, at_once: bool) -> set[int]:
    """The kept ids, one at a time from the most probable one."""
    p_V = softmax(logit_V)
    ranked = sorted(range(len(p_V)), key=lambda token: -p_V[token])
    by_min_p = [token for token in ranked if p_V[token] >= min_p * p_V[ranked[0]]]
    left = by_min_p[:top_k] if top_k else by_min_p
    total = 1.0 if at_once else math.fsum(p_V[token] for token in left)
    kept: set[int] = set()
    mass = 0.0
    for token in left:
        if kept and top_p < 1 and mass >= top_p:
            break
        kept.add(token)
        mass += p_V[token] / total
    return kept


@given(
    logits,
    st.sampled_from([0.0, 0.013, 0.21, 1.0]),
    st.integers(0, 13),
    st.sampled_from([0.1234567, 0.5432101, 0.9876543, 1.0]),
    st.booleans(),
)
def test_what_is_kept_is_what_a_loop_keeps(
    logit_V: list[float], min_p: float, top_k: int, top_p: float, at_once: bool
) -> None:
    logp_MV = sampler.normalised(np.array([logit_V]))
    settings: dict[str, Any] = {"min_p": min_p, "top_k": top_k, "top_p": top_p, "at_once": at_once}
    kept_MV = sampler.kept(logp_MV, **settings)
    expected = textbook(logit_V, **settings)
    assert set(np.flatnonzero(kept_MV[0]).tolist()) == expected
    p_V = softmax(logit_V)
    mass = math.fsum(p_V[token] for token in expected)
    assert sampler.mass_of(logp_MV, kept_MV)[0] == pytest.approx(mass, abs=1e-12)
    restricted_MV = sampler.restricted(logp_MV, kept_MV)
    assert np.exp(restricted_MV).sum() == pytest.approx(1.0, abs=1e-12)
    assert sampler.total_variation(restricted_MV, logp_MV)[0] == pytest.approx(1.0 - mass, abs=1e-12)


@given(logits, st.floats(0.1, 5.0))
def test_log_probs_know_the_temperature_without_their_level(logit_V: list[float], temperature: float) -> None:
    expected_V = softmax([value / temperature for value in logit_V])
    from_logits = sampler.normalised(np.array([logit_V]) / temperature)
    from_logp = sampler.normalised(sampler.normalised(np.array([logit_V]) + 7.0) / temperature)
    np.testing.assert_allclose(np.exp(from_logits[0]), expected_V, atol=1e-12)
    np.testing.assert_allclose(np.exp(from_logp[0]), expected_V, atol=1e-12)


@given(logits, st.lists(st.integers(0, 11), max_size=20), st.floats(-2, 2), st.floats(-2, 2))
def test_penalties_count_what_was_there_before(
    logit_V: list[float], earlier: list[int], presence: float, frequency: float
) -> None:
    earlier = [token % len(logit_V) for token in earlier]
    expected = [
        value - frequency * earlier.count(token) - presence * (token in earlier)
        for token, value in enumerate(logit_V)
    ]
    ids, counts = np.unique(np.array(earlier, dtype=np.int64), return_counts=True)
    before = np.array([logit_V, logit_V])
    found = sampler.penalised(
        before, np.ones(len(ids), dtype=np.int64), ids, counts, presence=presence, frequency=frequency
    )
    np.testing.assert_allclose(found, [logit_V, expected], atol=1e-12)
    np.testing.assert_array_equal(before[1], logit_V)


def test_greedy_keeps_the_first_of_the_most_probable() -> None:
    kept_MV = sampler.most_probable(np.log([[0.2, 0.4, 0.4], [0.5, 0.3, 0.2]]))
    np.testing.assert_array_equal(kept_MV, [[False, True, False], [True, False, False]])


def test_ids_without_any_probability_are_none_that_are_kept() -> None:
    logp_MV = np.array([[math.log(0.6), math.log(0.4), -math.inf]])
    np.testing.assert_array_equal(sampler.kept(logp_MV), [[True, True, False]])
    np.testing.assert_array_equal(sampler.kept(logp_MV, top_p=0.999), [[True, True, False]])
    np.testing.assert_array_equal(sampler.kept(logp_MV, top_k=3), [[True, True, False]])


def test_without_mass_on_the_kept_ids_there_is_no_policy() -> None:
    logp_MV = np.array([[0.0, -math.inf]])
    assert np.isnan(sampler.restricted(logp_MV, np.array([[False, True]]))).all()
