from __future__ import annotations

import numpy as np
import pytest

from mismatchscope.measures.distance_histogram import DistanceHistogram, scored_distances


def histogram(value_N: np.ndarray) -> DistanceHistogram:
    made = DistanceHistogram()
    made.add(value_N)
    return made


def test_the_chance_is_that_of_all_pairs() -> None:
    rng = np.random.default_rng(1)
    a_N, b_N = rng.exponential(1.0, 300), rng.exponential(0.5, 200)
    exact = float((a_N[:, None] > b_N).mean())
    assert histogram(a_N).chance_above(histogram(b_N)) == pytest.approx(exact, abs=0.02)


def test_any_value_has_a_bin() -> None:
    made = histogram(np.array([0.0, 1e-300, 1e-9, 1.0, 1e9, np.inf]))
    assert made.n == 6
    made.merge(histogram(np.zeros(0)))
    assert made.n == 6


def test_tokens_that_one_side_did_not_score() -> None:
    nan = float("nan")
    mu_N, pi_N = np.array([-1.0, 0.0, -1.0, nan, -1.0, 0.5]), np.array([-1.5, -1.0, 0.0, -1.0, -np.inf, -1.0])
    distance_N, scored_N = scored_distances(mu_N, pi_N)
    assert scored_N.tolist() == [True, False, False, False, False, False]
    assert distance_N[0] == 0.5
