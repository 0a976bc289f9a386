"""Aligned traces -> figures a state, against the exact divergences of the synthetic engine."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic_pair import make_pair

from mismatchscope.alignment.alignment import Alignment
from mismatchscope.comparison.states import States, measured
from mismatchscope.engines.synthetic.policy import SyntheticOptions
from mismatchscope.errors import NotComparableError
from mismatchscope.records import Evidence, Sampling
from mismatchscope.traces import Trace, write_records

TRUNCATED = Sampling(max_new_tokens=24, temperature=0.8, top_k=10)


def measure_states(alignment: Alignment, policy: str) -> States:
    """All states of a small pair, which fit into one block."""
    (states,) = measured(alignment, policy)
    return states


def concatenated(pair, policy: str, name: str) -> np.ndarray:
    return np.concatenate([getattr(truth, name) for truth in pair.truth(policy)])


@pytest.mark.parametrize(
    ("policy", "sampling"),
    [
        ("processed", Sampling(max_new_tokens=24)),
        ("processed", TRUNCATED),
        ("raw", TRUNCATED),
        ("support", TRUNCATED),
    ],
)
def test_full_evidence_is_exact(tmp_path, policy: str, sampling: Sampling) -> None:
    pair = make_pair(tmp_path, sampling=sampling, policy="raw" if policy == "raw" else "processed")
    measures = measure_states(Alignment(pair.behavior, pair.reference), policy)
    for column, name in (("tv", "tv_T"), ("kl", "kl_T"), ("reverse_kl", "reverse_kl_T"), ("leak", "leak_T")):
        expected = concatenated(pair, policy, name)
        # The distributions were stored in float32.
        np.testing.assert_allclose(measures.columns[column], expected, rtol=1e-3, atol=2e-6, err_msg=column)
    np.testing.assert_allclose(measures.sampled.log_ratio, concatenated(pair, policy, "log_ratio_T"), atol=1e-5)
    assert measures.all_exact and not measures.topk
    np.testing.assert_array_equal(measures.tv_lower_N, measures.tv_upper_N)


@pytest.mark.parametrize("k", [1, 4, 16, 64])
def test_topk_evidence_encloses_the_truth(tmp_path, k: int) -> None:
    pair = make_pair(tmp_path, evidence=Evidence("topk", k=k))
    measures = measure_states(Alignment(pair.behavior, pair.reference), "processed")
    exact = concatenated(pair, "processed", "tv_T")
    assert measures.topk and measures.exact_N is None
    assert (measures.tv_lower_N <= exact + 1e-9).all()
    assert (exact <= measures.tv_upper_N + 1e-9).all()
    if k == 64:  # the whole vocabulary
        np.testing.assert_allclose(measures.tv_upper_N, exact, atol=1e-9)


def test_sampled_evidence_bounds_from_below_alone(tmp_path) -> None:
    pair = make_pair(tmp_path, evidence=Evidence("sampled"))
    measures = measure_states(Alignment(pair.behavior, pair.reference), "processed")
    assert not measures.topk and measures.tv_upper_N is None
    assert (measures.tv_lower_N <= concatenated(pair, "processed", "tv_T") + 1e-9).all()
    assert measures.columns == {}


def test_a_random_subset_of_states_is_the_same_on_both_sides(tmp_path) -> None:
    pair = make_pair(tmp_path, evidence=Evidence("full", fraction=0.3, seed=3))
    measures = measure_states(Alignment(pair.behavior, pair.reference), "processed")
    exact = concatenated(pair, "processed", "tv_T")
    assert 0.2 < measures.exact_N.mean() < 0.4
    np.testing.assert_allclose(measures.columns["tv"][measures.exact_N], exact[measures.exact_N], atol=2e-6)
    assert (measures.tv_lower_N <= exact + 2e-6).all()
    assert not measures.all_bounded


def test_identical_sides_are_recognised(tmp_path) -> None:
    pair = make_pair(tmp_path, reference=SyntheticOptions())
    assert measure_states(Alignment(pair.behavior, pair.reference), "processed").identical
    nearly = make_pair(tmp_path / "nearly", reference=SyntheticOptions(epsilon=1e-6))
    assert not measure_states(Alignment(nearly.behavior, nearly.reference), "processed").identical


def test_support_needs_the_whole_kept_set(tmp_path) -> None:
    enough = make_pair(tmp_path / "10", evidence=Evidence("topk", k=10), sampling=TRUNCATED)
    measures = measure_states(Alignment(enough.behavior, enough.reference), "support")
    np.testing.assert_allclose(measures.tv_lower_N, concatenated(enough, "support", "tv_T"), atol=1e-5)
    too_few = make_pair(tmp_path / "4", evidence=Evidence("topk", k=4), sampling=TRUNCATED)
    with pytest.raises(NotComparableError, match="kept set"):
        measure_states(Alignment(too_few.behavior, too_few.reference), "support")


def test_offsets_bound_the_sequences(tmp_path) -> None:
    pair = make_pair(tmp_path)
    measures = measure_states(Alignment(pair.behavior, pair.reference), "processed")
    lengths = [len(record.response_token_ids) for record in pair.records]
    np.testing.assert_array_equal(np.diff(measures.offsets_S1), lengths)


def test_a_distribution_that_is_none_is_named(tmp_path) -> None:
    pair = make_pair(tmp_path)
    pair.records[1].observed.full_logprobs_RV[3] -= 0.5
    pair.records[1].observed.logprob_T[3] -= 0.5
    write_records(tmp_path / "bad", pair.behavior.manifest.model_copy(update={"files": {}}), pair.records)
    with pytest.raises(NotComparableError, match=r"position 3 of sequence 1 of the behaviour .* is not normalised"):
        measure_states(Alignment(Trace.open(tmp_path / "bad"), pair.reference), "processed")


@pytest.mark.parametrize("logprob", [0.5, -np.inf])
def test_numbers_that_no_policy_has_are_refused(tmp_path, logprob: float) -> None:
    """A positive log-prob, or −inf for a token that μ itself sampled."""
    pair = make_pair(tmp_path, evidence=Evidence("sampled"))
    pair.records[0].observed.logprob_T[2] = logprob
    write_records(tmp_path / "bad", pair.behavior.manifest.model_copy(update={"files": {}}), pair.records)
    with pytest.raises(NotComparableError, match="not those of a policy: position 2 of sequence 0: the behaviour"):
        measure_states(Alignment(Trace.open(tmp_path / "bad"), pair.reference), "processed")
