"""Differences of two pairs state by state, against the same differences written down."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from written_traces import full_trace, pair_of, sampled_pair, sampled_trace

from mismatchscope.comparison.paired_states import PairedDifferences, _shared
from mismatchscope.measures.intervals import clustered_mean

LENGTHS = [4, 6, 5, 3, 7]


def log_probs(seed: int) -> list[np.ndarray]:
    return [np.log(np.random.default_rng([seed, s]).uniform(0.1, 0.9, n)) for s, n in enumerate(LENGTHS)]


def test_the_difference_is_over_states_with_the_prompt_as_the_unit(tmp_path: Path) -> None:
    mu_ST, pi_ST, old_ST = log_probs(0), log_probs(1), log_probs(2)
    mu, old = sampled_trace(tmp_path / "mu", mu_ST), sampled_trace(tmp_path / "old", old_ST)
    pi = sampled_trace(tmp_path / "pi", pi_ST, role="reference")
    found = PairedDifferences.of(pair_of(mu, pi), pair_of(old, pi, drawn_by=mu))
    mu_N, pi_N, old_N = (np.concatenate(each) for each in (mu_ST, pi_ST, old_ST))
    difference_N = np.abs(mu_N - pi_N) - np.abs(old_N - pi_N)
    expected = clustered_mean(difference_N, np.repeat(np.arange(len(LENGTHS)), LENGTHS))
    for name in ("value", "low", "high"):
        assert getattr(found.abs_logprob_diff, name) == pytest.approx(getattr(expected, name))
    assert (found.abs_logprob_diff.n, found.abs_logprob_diff.clusters) == (sum(LENGTHS), len(LENGTHS))
    # Tokens of μ: what is said of the old engine is weighted by how often it would have drawn them.
    weight_N = np.exp(old_N - mu_N)
    tv_N = np.maximum(-np.expm1(pi_N - mu_N), 0) - weight_N * np.maximum(-np.expm1(pi_N - old_N), 0)
    assert found.tv.value == pytest.approx(tv_N.mean())
    new_kl_N, old_kl_N = (np.exp(d_N) - 1 - d_N for d_N in (pi_N - mu_N, pi_N - old_N))
    assert found.kl.value == pytest.approx((new_kl_N - weight_N * old_kl_N).mean())


def test_tokens_of_no_known_policy_compare_log_probs_alone(tmp_path: Path) -> None:
    pair = sampled_pair(tmp_path, log_probs(0), log_probs(1), on_policy=False)
    found = PairedDifferences.of(pair, pair)
    assert (found.tv, found.kl) == (None, None) and found.abs_logprob_diff.value == 0


def test_a_pair_less_itself_is_0(tmp_path: Path) -> None:
    pair = sampled_pair(tmp_path, log_probs(0), log_probs(1))
    itself = PairedDifferences.of(pair, pair).abs_logprob_diff
    assert (itself.value, itself.low, itself.high) == (0.0, 0.0, 0.0)


def test_only_states_that_both_pairs_have_count(tmp_path: Path) -> None:
    """Sequences 0 and 2 of the new pair, 2 and 3 of the old one; and of sequence 2 a state that is not known."""
    mu = sampled_trace(tmp_path / "mu", [np.full(4, -1.0)] * 2, ids=[0, 2])
    old = sampled_trace(tmp_path / "old", [np.full(4, -2.0)] * 2, ids=[2, 3])
    pi_ST = [np.array([-1.0, -1.5, -3.0, np.nan])] * 3
    pi = sampled_trace(tmp_path / "pi", pi_ST, ids=[0, 2, 3], role="reference")
    found = PairedDifferences.of(pair_of(mu, pi), pair_of(old, pi)).abs_logprob_diff
    assert (found.n, found.clusters) == (3, 1)
    assert found.value == pytest.approx(((0 - 1) + (0.5 - 0.5) + (2 - 1)) / 3)


def test_an_infinite_state_is_left_out_of_its_figure_alone(tmp_path: Path) -> None:
    """π excludes what the old engine allows at one state: KL is infinite there and TV is not."""
    p_V, q_V, inf_V = [0.5, 0.5, 0.0], [0.6, 0.4, 0.0], [0.5, 0.25, 0.25]
    mu = full_trace(tmp_path / "mu", [[p_V, p_V], [p_V, p_V]])
    old = full_trace(tmp_path / "old", [[p_V, inf_V], [p_V, p_V]])
    pi = full_trace(tmp_path / "pi", [[q_V, q_V], [q_V, q_V]], role="reference")
    found = PairedDifferences.of(pair_of(mu, pi), pair_of(old, pi))
    assert (found.tv.n, found.kl.n, found.abs_logprob_diff.n) == (4, 3, 4)
    assert found.tv.value == pytest.approx((0.1 - 0.25) / 4, abs=1e-6)
    assert found.kl.value == pytest.approx(0.0, abs=1e-6)


places = st.sets(st.integers(0, 30), max_size=20).map(sorted)


@pytest.mark.slow
@given(new=places, old=places, cut=st.tuples(st.integers(1, 7), st.integers(1, 7)))
@settings(max_examples=150, deadline=None)
def test_every_shared_state_is_met_once_however_the_blocks_lie(
    new: list[int], old: list[int], cut: tuple[int, int]
) -> None:
    def blocks(at: list[int], size: int) -> list[dict[str, np.ndarray]]:
        return [
            {"place": np.array(at[i : i + size]), "value": np.array(at[i : i + size]) * 2}
            for i in range(0, len(at), size)
        ]

    met = []
    for a, b in _shared(iter(blocks(new, cut[0])), iter(blocks(old, cut[1]))):
        np.testing.assert_array_equal(a["place"], b["place"])
        np.testing.assert_array_equal(a["value"], a["place"] * 2)
        met += a["place"].tolist()
    assert met == sorted(set(new) & set(old))
