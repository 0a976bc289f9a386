"""Tokens that a mask left out one by one are told from those in runs and at ends, for any share of them."""

from __future__ import annotations

import numpy as np
import pytest

from mismatchscope.measures.scattered import Scatter

LENGTH = 40


def scatter(left_SL: np.ndarray) -> bool:
    """In two parts that are merged."""
    found = Scatter()
    for part_SL in np.array_split(left_SL, 2):
        first_SL = np.zeros_like(part_SL)
        first_SL[:, 0] = True
        part = Scatter()
        part.add(part_SL.ravel(), np.ones(part_SL.size, dtype=bool), first_SL.ravel())
        found.merge(part)
    return found.is_scattered


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.6])
def test_single_tokens_are_scattered(share: float) -> None:
    assert scatter(np.random.default_rng(0).random((100, LENGTH)) < share)


@pytest.mark.parametrize("run", [4, 8, 20])
def test_runs_are_not(run: int) -> None:
    start_S = np.random.default_rng(run).integers(1, LENGTH - run, 100)
    place_L = np.arange(LENGTH)
    assert not scatter((place_L >= start_S[:, None]) & (place_L < start_S[:, None] + run))


@pytest.mark.parametrize("place", [0, LENGTH - 1])
def test_ends_are_not(place: int) -> None:
    assert not scatter(np.broadcast_to(np.arange(LENGTH) == place, (100, LENGTH)))


def test_nothing_is_not_scattered() -> None:
    assert not scatter(np.zeros((4, LENGTH), dtype=bool))
