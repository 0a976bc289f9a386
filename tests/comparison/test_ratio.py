"""Ratios of two mean gaps, against means written down."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from written_traces import full_trace, pair_of, sampled_pair

from mismatchscope.comparison.pair import Pair
from mismatchscope.comparison.ratio import ratio_of, ratio_of_means
from mismatchscope.measures.accumulators import ClusterSums


def pair_with(directory: Path, tv_ST: list[np.ndarray]) -> Pair:
    mu = full_trace(directory / "mu", [np.full((len(tv_T), 2), 0.5) for tv_T in tv_ST])
    shifted = [np.stack([0.5 - tv_T, 0.5 + tv_T], axis=1) for tv_T in tv_ST]
    return pair_of(mu, full_trace(directory / "pi", shifted, role="reference", path="prefill"))


def test_it_is_one_mean_over_the_other_whatever_the_states(tmp_path: Path) -> None:
    """Other numbers of states, and prompts that only one of the two has."""
    rng = np.random.default_rng(0)
    ours = [rng.uniform(0.1, 0.2, length) for length in (4, 7, 1)]
    theirs = [rng.uniform(0.01, 0.02, length) for length in (9, 2, 5, 6)]
    found = ratio_of(pair_with(tmp_path / "a", ours), pair_with(tmp_path / "b", theirs), to="the other")
    assert found is not None and (found.to, found.figure) == ("the other", "tv")
    expected = np.concatenate(ours).mean() / np.concatenate(theirs).mean()
    assert found.value.value == pytest.approx(expected, rel=1e-5) and found.value.clusters == 4
    assert found.value.low < expected < found.value.high


def test_where_distributions_were_not_seen_it_is_of_the_log_probs(tmp_path: Path) -> None:
    log_ST = [np.log(np.full(6, 0.5))] * 3
    pairs = [
        sampled_pair(tmp_path / str(gap), log_ST, [log_T - gap for log_T in log_ST], on_policy=False)
        for gap in (0.1, 0.4)
    ]
    found = ratio_of(*pairs, to="")
    assert found is not None and found.figure == "abs_logprob_diff"
    assert found.value.value == pytest.approx(0.25)
    assert ratio_of(pairs[0], pair_with(tmp_path / "none", [np.zeros(4)] * 3), to="") is None


def test_nothing_at_all_is_surely_nothing_of_the_other() -> None:
    prompt_N = np.repeat(np.arange(5), 3)
    nothing, other = ClusterSums.of(np.zeros(15), prompt_N), ClusterSums.of(np.full(15, 0.1), prompt_N)
    found = ratio_of_means(nothing, other, clusters=5, confidence=0.95)
    assert found is not None and (found.low, found.value, found.high) == (0.0, 0.0, 0.0)
    assert ratio_of_means(other, nothing, clusters=5, confidence=0.95) is None
    infinite = ClusterSums.of(np.append(np.zeros(14), np.inf), prompt_N)
    assert ratio_of_means(infinite, other, clusters=5, confidence=0.95) is None
