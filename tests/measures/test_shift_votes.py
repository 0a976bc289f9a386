"""Shapes: S responses, W tokens."""

from __future__ import annotations

import numpy as np
import pytest
from paired_columns import columns

from mismatchscope.measures.shift_votes import LEVEL, SHIFTS, shift_of_responses, shift_votes


def moved(logp_SW: np.ndarray, shift: int) -> np.ndarray:
    """Value [t] is of token t − shift; 0 where there is none."""
    found_SW = np.roll(logp_SW, shift, axis=1)
    if shift > 0:
        found_SW[:, :shift] = 0.0
    else:
        found_SW[:, shift:] = 0.0
    return found_SW


def by_hand(mu_W: np.ndarray, pi_W: np.ndarray, shift: int) -> tuple[list[int], list[int], list[float]]:
    better, worse, at_zero = [0, 0], [0, 0], [0.0, 0.0]
    for t in range(len(mu_W)):
        if not 0 <= t + shift < len(mu_W):
            continue
        distance = abs(mu_W[t] - pi_W[t + shift])
        for v, at in enumerate((t, t + shift)):
            zero = abs(mu_W[at] - pi_W[at])
            better[v] += distance < zero
            worse[v] += distance > zero
            at_zero[v] += zero if np.isfinite(distance + zero) else 0.0
    return better, worse, at_zero


def test_votes_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(1)
    mu_SW, pi_SW = columns(rng, 5, 9, 0.5)
    pi_SW[1, 3:] = np.nan
    votes = shift_votes(mu_SW, pi_SW)
    for s in range(5):
        for k, shift in enumerate(SHIFTS):
            better, worse, at_zero = by_hand(mu_SW[s], pi_SW[s], shift)
            assert votes.better_SKV[s, k].tolist() == better
            assert votes.worse_SKV[s, k].tolist() == worse
            assert votes.at_zero_SKV[s, k] == pytest.approx(at_zero)


@pytest.mark.parametrize("error", [0.01, 0.1, 0.5, 1.5])
@pytest.mark.parametrize("tokens", [16, 40, 128])
def test_hardly_any_sound_response_is_taken_for_a_shifted_one(error: float, tokens: int) -> None:
    """2,000 responses each; a rate of `LEVEL` makes more than 3 of them in one test of 1,000."""
    shift_S, _ = shift_of_responses(shift_votes(*columns(np.random.default_rng(tokens), 2000, tokens, error)))
    assert np.count_nonzero(shift_S) <= 2000 * LEVEL + 3


def test_unrelated_columns_are_not_shifted() -> None:
    rng = np.random.default_rng(2)
    mu_SW, pi_SW = columns(rng, 2000, 64, 0.1)
    shift_S, tells_S = shift_of_responses(shift_votes(mu_SW, pi_SW[rng.permutation(2000)]))
    assert np.count_nonzero(shift_S) <= 4
    assert tells_S.mean() < 0.05


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize(("error", "found"), [(0.03, 0.98), (0.3, 0.95), (1.0, 0.6)])
def test_a_shift_is_found_at_64_tokens(shift: int, error: float, found: float) -> None:
    mu_SW, pi_SW = columns(np.random.default_rng(3), 300, 64, error)
    shift_S, _ = shift_of_responses(shift_votes(mu_SW, moved(pi_SW, shift)))
    assert np.mean(shift_S == shift) >= found


def test_a_short_response_cannot_tell() -> None:
    mu_SW, pi_SW = columns(np.random.default_rng(4), 200, 5, 0.01)
    for shift in (0, 1):
        shift_S, tells_S = shift_of_responses(shift_votes(mu_SW, moved(pi_SW, shift) if shift else pi_SW))
        assert not shift_S.any()
        assert not tells_S.any()
