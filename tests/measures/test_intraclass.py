"""The intraclass correlation and its interval, against its textbook formula and a known truth."""

from __future__ import annotations

import numpy as np
import pytest

from mismatchscope.measures.intraclass import intraclass


def sums(value_N: np.ndarray, group_N: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.bincount(group_N) * 1.0, np.bincount(group_N, value_N), np.bincount(group_N, value_N**2)


def test_it_is_that_of_the_analysis_of_variance() -> None:
    rng = np.random.default_rng(0)
    group_N = np.repeat(np.arange(10), rng.integers(1, 9, 10))
    value_N = rng.normal(size=len(group_N)) + rng.normal(size=10)[group_N]
    mean_C = np.bincount(group_N, value_N) / np.bincount(group_N)
    n_C, total = np.bincount(group_N), len(group_N)
    msb = np.sum(n_C * (mean_C - value_N.mean()) ** 2) / 9
    msw = np.sum((value_N - mean_C[group_N]) ** 2) / (total - 10)
    n0 = (total - np.sum(n_C**2) / total) / 9
    found = intraclass(*sums(value_N, group_N))
    assert found.value == pytest.approx((msb - msw) / (msb + (n0 - 1) * msw), rel=1e-9)
    assert found.low < found.value < found.high  # type: ignore[operator]
    assert (found.n, found.clusters) == (total, 10)


@pytest.mark.parametrize("skewed", [False, True])
@pytest.mark.parametrize("truth", [0.0, 0.3, 0.7])
def test_the_interval_holds_the_truth(truth: float, skewed: bool) -> None:
    rng = np.random.default_rng([int(10 * truth), skewed])
    held = []
    for _ in range(200):
        group_N = np.repeat(np.arange(64), rng.integers(2, 9, 64))
        noise = (rng.exponential(size=len(group_N)) - 1, rng.exponential(size=64) - 1)
        if not skewed:
            noise = (rng.normal(size=len(group_N)), rng.normal(size=64))
        value_N = np.sqrt(1 - truth) * noise[0] + np.sqrt(truth) * noise[1][group_N]
        found = intraclass(*sums(0.001 * value_N + 5, group_N))
        held.append(found.low <= truth <= found.high)  # type: ignore[operator]
    assert np.mean(held) > 0.88  # nominal 0.95; standard error 0.015 and more with skewed effects


def test_what_cannot_be_told_is_none() -> None:
    alone = np.ones(5), np.arange(5.0), np.arange(5.0) ** 2
    assert intraclass(*alone).value is None
    constant = np.full(9, 3.0), np.full(9, 6.0), np.full(9, 12.0)
    assert intraclass(*constant).value is None
    few = intraclass(np.array([2.0, 2, 2]), np.array([1.0, 2, 3]), np.array([2.0, 3, 6]))
    assert few.value is not None and few.low is None


def test_means_of_steps_that_were_taken_out_widen_the_interval() -> None:
    """Forty steps of two prompts each, of four values: of 300 runs in which prompts are alike 2.6 % say otherwise,
    and 11 % by the shifts as they are."""
    rng = np.random.default_rng(4)
    group_N, wrong = np.repeat(np.arange(80), 4), 0
    for _ in range(300):
        value_N = rng.gamma(2, 1, (40, 8))
        value_N = (value_N - value_N.mean(axis=1, keepdims=True)).ravel()
        found = intraclass(*sums(value_N, group_N), fitted=(40.0, 0.0))
        wrong += not found.low <= 0 <= found.high  # type: ignore[operator]
    assert wrong / 300 <= 0.06
