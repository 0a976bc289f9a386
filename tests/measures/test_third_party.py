"""Errors of two policies against a third, held against their definitions on the errors themselves."""

from __future__ import annotations

import numpy as np
import pytest

from mismatchscope.measures.third_party import third_party

PROMPTS, TOKENS = 40, 200


def sums(a_N: np.ndarray, b_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums by prompt of the three squares, and the counts, from errors of tokens in the order of the prompts."""
    squares_3N = np.stack([a_N**2, b_N**2, (a_N - b_N) ** 2])
    return squares_3N.reshape(3, PROMPTS, TOKENS).sum(axis=2), np.full(PROMPTS, TOKENS)


@pytest.mark.parametrize("planted", [-0.5, 0.0, 0.9])
def test_against_the_definitions(planted: float) -> None:
    a_N, other_N = np.random.default_rng(0).normal(size=(2, PROMPTS * TOKENS))
    b_N = 3 * (planted * a_N + np.sqrt(1 - planted**2) * other_N)
    found = third_party(*sums(a_N, b_N))
    assert found is not None
    assert found.rms_setting == pytest.approx(np.sqrt(np.mean(a_N**2)))
    assert found.rms_against == pytest.approx(np.sqrt(np.mean(b_N**2)))
    assert found.ratio.value == pytest.approx(found.rms_setting / found.rms_against)
    expected = np.mean(a_N * b_N) / np.sqrt(np.mean(a_N**2) * np.mean(b_N**2))
    assert found.correlation.value == pytest.approx(expected)
    assert found.quadrature.value == pytest.approx(np.mean((a_N - b_N) ** 2) / np.mean(a_N**2 + b_N**2))
    for interval, truth in ((found.ratio, 1 / 3), (found.correlation, planted)):
        assert interval.low is not None and interval.high is not None
        assert interval.low < truth < interval.high and interval.high - interval.low < 0.1


def test_intervals_hold_what_they_promise() -> None:
    """Errors whose size differs from prompt to prompt, as those of real ones do."""
    rng, covered = np.random.default_rng(1), 0
    for _ in range(200):
        size_N = np.repeat(np.exp(rng.normal(scale=0.5, size=PROMPTS)), TOKENS)
        a_N, b_N = size_N * rng.normal(size=(2, PROMPTS * TOKENS))
        found = third_party(*sums(a_N, b_N))
        assert found is not None and found.correlation.low is not None and found.correlation.high is not None
        covered += found.correlation.low <= 0 <= found.correlation.high
    assert covered >= 180


def test_without_errors_there_is_nothing_to_relate() -> None:
    a_N = np.random.default_rng(0).normal(size=PROMPTS * TOKENS)
    assert third_party(*sums(a_N, np.zeros_like(a_N))) is None
    assert third_party(*sums(a_N, np.full_like(a_N, np.inf))) is None


def test_one_prompt_gives_no_interval() -> None:
    squares_3C = np.array([[2.0], [1.0], [3.0]])
    found = third_party(squares_3C, np.array([5]))
    assert found is not None and found.correlation.value == 0.0 and found.quadrature.value == 1.0
    assert found.correlation.low is None and found.ratio.high is None


def test_errors_of_one_prompt_alone_give_no_interval() -> None:
    found = third_party(np.array([[2.0, 0.0], [1.0, 0.0], [3.0, 0.0]]), np.array([5, 5]))
    assert found is not None and found.ratio.low is None and found.ratio.method == "one-cluster-makes-it"
