"""The gap along the response, against halves written down."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from written_traces import full_trace, pair_of, sampled_pair

from mismatchscope.comparison.growth import growth_of
from mismatchscope.comparison.pair import Pair
from mismatchscope.comparison.ratio import ratio_of_means
from mismatchscope.measures.accumulators import ClusterSums
from mismatchscope.measures.results import Interval


def pair_with(directory: Path, tv_ST: list[np.ndarray]) -> Pair:
    mu = full_trace(directory / "mu", [np.full((len(tv_T), 2), 0.5) for tv_T in tv_ST])
    shifted = [np.stack([0.5 - tv_T, 0.5 + tv_T], axis=1) for tv_T in tv_ST]
    return pair_of(mu, full_trace(directory / "pi", shifted, role="reference", path="prefill"))


def growth(pair: Pair) -> Interval:
    found = growth_of(pair)
    assert found is not None
    return found


def test_it_is_the_later_half_over_the_earlier_one(tmp_path: Path) -> None:
    """The middle of an odd number of tokens is in neither half."""
    rng = np.random.default_rng(0)
    tv_ST = [rng.uniform(0.01, 0.2, length) for length in (4, 7, 6, 5, 1, 9)]
    earlier = np.concatenate([tv_T[: len(tv_T) // 2] for tv_T in tv_ST])
    later = np.concatenate([tv_T[(len(tv_T) + 1) // 2 :] for tv_T in tv_ST])
    found = growth(pair_with(tmp_path, tv_ST))
    assert found.value == pytest.approx(later.mean() / earlier.mean(), rel=1e-5)
    assert found.low < found.value < found.high
    assert (found.n, found.clusters) == (len(earlier) + len(later), 6)


@pytest.mark.parametrize("times", [3.0, 1 / 3])
def test_growth_beyond_the_noise_of_the_prompts_is_resolved(tmp_path: Path, times: float) -> None:
    rng = np.random.default_rng(1)
    ramp_T = np.where(np.arange(12) < 6, 1.0, times)
    tv_ST = [rng.uniform(0.01, 0.05) * rng.uniform(0.8, 1.2, 12) * ramp_T for _ in range(12)]
    found = growth(pair_with(tmp_path, tv_ST))
    assert found.low < times < found.high
    assert (found.low > 1) == (times > 1) and (found.high < 1) == (times < 1)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Samples of 24 prompts whose tokens have one law in both halves: the ratio is 1."""
    rng = np.random.default_rng(2)
    prompt_N = np.repeat(np.arange(24), 4)
    covered = []
    for _ in range(1000):
        scale_N = np.repeat(rng.uniform(0.01, 0.1, 24), 4)
        halves = [ClusterSums.of(scale_N * rng.exponential(1.0, 96), prompt_N) for _ in range(2)]
        found = ratio_of_means(*halves, clusters=24, confidence=0.95)
        covered.append(found.low <= 1 <= found.high)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.021)  # three standard deviations


def test_equal_halves_are_no_growth(tmp_path: Path) -> None:
    found = growth(pair_with(tmp_path, [np.full(4, 0.1), np.full(6, 0.1)]))
    assert found.value == pytest.approx(1.0) and found.low is None and found.high is None


def test_one_prompt_gives_no_interval(tmp_path: Path) -> None:
    found = growth(pair_with(tmp_path, [np.array([0.1, 0.2])]))
    assert (found.value, found.low, found.method) == (pytest.approx(2.0, rel=1e-5), None, "too-few-clusters")


@pytest.mark.parametrize("tv_ST", [[np.zeros(4)] * 3, [np.full(1, 0.1)] * 3, [np.array([0.0, 0.1])] * 3])
def test_without_a_gap_in_an_earlier_half_there_is_no_ratio(tmp_path: Path, tv_ST: list[np.ndarray]) -> None:
    assert growth_of(pair_with(tmp_path, tv_ST)) is None


def test_tokens_of_no_known_policy_say_nothing(tmp_path: Path) -> None:
    log_ST = [np.log(np.full(6, 0.5))] * 2
    assert growth_of(sampled_pair(tmp_path, log_ST, [log_T - 0.1 for log_T in log_ST], on_policy=False)) is None
