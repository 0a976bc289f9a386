"""Above, within a margin, or neither: when is each claimed, and how often wrongly?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mismatchscope.measures.accumulators import ClusterSums
from mismatchscope.measures.excess import Excess, excess_of
from mismatchscope.measures.intervals import clustered_mean

FLOOR = 0.004


def excess(ours_N: np.ndarray, floor_N: np.ndarray, prompt_N: np.ndarray, margin: float = 0.5) -> Excess:
    return excess_of(ClusterSums.of(ours_N, prompt_N), ClusterSums.of(floor_N, prompt_N), margin=margin)


def of_prompts(ours_C: np.ndarray, floor_C: np.ndarray, margin: float = 0.5) -> Excess:
    return excess(ours_C, floor_C, np.arange(len(ours_C)), margin)


def noise(seed: int, prompts: int) -> np.ndarray:
    return FLOOR * np.random.default_rng(seed).gamma(20, 1 / 20, prompts)


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_what_two_measurements_share_cancels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    prompt_N = np.repeat(np.arange(12), rng.integers(1, 9, 12))
    ours_N = rng.random(prompt_N.size)
    floor_N = ours_N + rng.normal(0, 1e-3, ours_N.size)
    expected, found = clustered_mean(ours_N - floor_N, prompt_N), excess(ours_N, floor_N, prompt_N).difference
    for end in ("value", "low", "high"):
        assert getattr(found, end) == pytest.approx(getattr(expected, end), abs=1e-9)


def test_a_paired_interval_is_far_shorter_than_that_of_one_side() -> None:
    rng = np.random.default_rng(0)
    prompt_N = np.repeat(np.arange(40), rng.integers(1, 40, 40))
    shared_N = rng.beta(0.2, 5, prompt_N.size) * rng.gamma(0.5, 1, 40)[prompt_N]
    moved_N = shared_N + rng.normal(0.01, 1e-3, prompt_N.size)
    paired = excess(moved_N, shared_N, prompt_N).difference
    assert paired.low < 0.01 < paired.high
    alone = clustered_mean(shared_N, prompt_N)
    assert paired.high - paired.low < 0.05 * (alone.high - alone.low)


def test_equal_means_of_many_prompts_are_within_and_of_few_are_not() -> None:
    many, few = (of_prompts(noise(2, n), noise(1, n)) for n in (64, 58))
    assert (many.above, many.within, many.needed_clusters) == (False, True, None)
    assert (few.above, few.within, few.needed_clusters) == (False, False, 59)
    assert many.margin == pytest.approx(noise(1, 64).mean() / 2)


def test_a_difference_can_be_there_and_small() -> None:
    floor_C = noise(1, 64)
    found = of_prompts(floor_C * 1.01 + noise(2, 64) * 1e-4, floor_C)
    assert found.above and found.within and found.needed_clusters is None


def test_a_wide_interval_that_holds_zero_is_not_within() -> None:
    """3 of 8 prompts differ by 0.5: nothing is shown, either way."""
    apart_C = np.array([0.5, 0.5, 0.5, 0, 0, 0, 0, 0])
    found = of_prompts(noise(0, 8) + apart_C, noise(1, 8))
    assert not found.above and not found.within and found.difference.low <= 0
    assert found.needed_clusters > 8


def test_one_prompt_that_stands_out_forbids_within() -> None:
    ours_C, floor_C = noise(0, 400), noise(1, 400)
    assert of_prompts(ours_C, floor_C).within
    ours_C[7] += 6 * FLOOR  # a hundredth of the margin of 400 prompts is 2 of the floor
    found = of_prompts(ours_C, floor_C)
    assert found.difference.high < found.margin and not found.within and not found.above


def test_a_floor_of_nothing_leaves_no_margin() -> None:
    found = of_prompts(np.where(np.arange(64) == 5, 0.3, 0.0), np.zeros(64))
    assert (found.margin, found.within, found.above) == (0.0, False, False)


def test_no_difference_at_all_is_within_where_there_are_enough_prompts() -> None:
    same_C = noise(0, 64)
    assert of_prompts(same_C, same_C).within
    assert not of_prompts(same_C[:40], same_C[:40]).within
    nothing = of_prompts(np.zeros(64), np.zeros(64))
    assert not nothing.within and not nothing.above


def test_one_prompt_has_no_interval() -> None:
    found = of_prompts(np.array([0.3]), np.array([0.1]))
    assert found.difference.low is None and not found.above and not found.within


def test_the_prompts_that_would_decide_do() -> None:
    """A mean a third of the floor above it, from too few prompts: more of the same kind are above."""
    rng = np.random.default_rng(4)

    def audit(prompts: int) -> Excess:
        spread_C = FLOOR * rng.gamma(0.7, 1 / 0.7, prompts)
        return of_prompts(
            spread_C * rng.gamma(4, 1 / 4, prompts) + FLOOR / 3, spread_C * rng.gamma(4, 1 / 4, prompts)
        )

    needed = [
        found.needed_clusters for found in (audit(16) for _ in range(60)) if found.needed_clusters is not None
    ]
    typical = int(np.median(needed))
    decided = [found.above or found.within for found in (audit(typical) for _ in range(100))]
    assert typical > 16 and np.mean(decided) > 0.5
