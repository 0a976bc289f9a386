"""The sample of a log that a diagnosis is made from: whole responses, the same ones for every order and split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_rows import log_batch, sampled_rows
from simulated_runs import RunDesign, simulated_run

from mismatchscope.analysis import token_sample
from mismatchscope.analysis.block import LogBlock
from mismatchscope.analysis.rows import Rejected, blocks_of
from mismatchscope.analysis.token_sample import TokenSample
from mismatchscope.diagnosis.evidence import TokenEvidence

RUN = simulated_run(RunDesign(steps=4, prompts=8, turns=2), seed=2)
BUDGET = 800


def sample_of(blocks: Sequence[LogBlock]) -> TokenSample:
    sample = TokenSample()
    for block in blocks:
        sample.add(block)
    return sample


def evidence_of(sample: TokenSample) -> TokenEvidence:
    evidence = sample.evidence()
    assert evidence is not None
    return evidence


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_sample, "MOST_TOKENS", BUDGET)


def test_tokens_are_as_the_log_has_them() -> None:
    evidence = evidence_of(sample_of([RUN.block()]))
    kept_N = RUN.mask_N
    np.testing.assert_array_equal(evidence.logp_mu_N, RUN.logp_mu_N[kept_N])
    np.testing.assert_array_equal(evidence.logp_pi_N, RUN.logp_pi_N[kept_N])
    np.testing.assert_array_equal(evidence.token_N, RUN.token_id_N[kept_N])
    np.testing.assert_array_equal(np.diff(evidence.offsets_S1), [kept_N[start : start + length].sum()
        for start, length in zip(RUN.start_S, RUN.length_S, strict=True)])  # fmt: skip
    np.testing.assert_array_equal(evidence.metadata["worker"], [f"worker-{worker}" for worker in RUN.worker_S])
    np.testing.assert_array_equal(evidence.metadata["step"], RUN.step_S)
    assert evidence.tokens_seen == evidence.tokens == int(kept_N.sum())


def test_the_token_before_is_not_known_after_one_that_the_mask_leaves_out() -> None:
    rows = {
        "behavior_logprobs": [[-1.0] * 4],
        "reference_logprobs": [[-1.1] * 4],
        "token_ids": [[5, 6, 7, 8]],
        "mask": [[True, True, False, True]],
    }
    (block,) = blocks_of(log_batch(**rows), Rejected())
    evidence = evidence_of(sample_of([block]))
    np.testing.assert_array_equal(evidence.position_N, [0, 1, 3])
    np.testing.assert_array_equal(evidence.previous_N, [-1, 5, -1])
    assert evidence.prompt_length_S is None


def test_prompts_are_known_where_every_response_has_one() -> None:
    rows = {
        "behavior_logprobs": [[-1.0], [-2.0]],
        "reference_logprobs": [[-1.1], [-2.1]],
        "token_ids": [[5], [6]],
        "prompt_token_ids": [[1, 2, 3], [4]],
    }
    (block,) = blocks_of(log_batch(**rows), Rejected())
    evidence = evidence_of(sample_of([block]))
    np.testing.assert_array_equal(evidence.prompt_length_S, [3, 1])
    np.testing.assert_array_equal(evidence.previous_N, [3, 4])


def test_what_no_policy_has_is_evidence() -> None:
    rows = {"behavior_logprobs": [[-1.0, np.nan, -2.0]], "reference_logprobs": [[-1.1, -1.0, 3.0]]}
    (block,) = blocks_of(log_batch(**rows), Rejected())
    evidence = evidence_of(sample_of([block]))
    np.testing.assert_array_equal(evidence.logp_mu_N, [-1.0, np.nan, -2.0])
    np.testing.assert_array_equal(evidence.logp_pi_N, [-1.1, -1.0, 3.0])


@pytest.mark.usefixtures("few")
@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(8)), at=st.integers(0, 8))
def test_every_order_and_split_keeps_the_same_responses(order: list[int], at: int) -> None:
    blocks = list(RUN.blocks(8))
    expected = evidence_of(sample_of(blocks))
    first, second = sample_of([blocks[i] for i in order[:at]]), sample_of([blocks[i] for i in order[at:]])
    first.merge(second)
    found = evidence_of(first)
    assert expected.tokens <= BUDGET < (expected.tokens_seen or 0) == found.tokens_seen
    for name in ("name_S", "logp_mu_N", "logp_pi_N", "token_N", "position_N", "previous_N", "prompt_S"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@pytest.mark.usefixtures("few")
def test_the_numbers_of_files_do_not_matter() -> None:
    """Files that come in another order have other numbers, and so have their responses."""
    parts = [log_batch(**sampled_rows(80, seed=seed, longest=30)) for seed in (1, 2)]

    def kept(parts: Sequence[object]) -> set[float]:
        blocks = [block for file, part in enumerate(parts) for block in blocks_of(part, Rejected(), file)]
        return set(evidence_of(sample_of(blocks)).logp_mu_N.tolist())

    assert kept(parts) == kept(parts[::-1])


@pytest.mark.usefixtures("few")
def test_no_more_is_kept_than_fits() -> None:
    sample = TokenSample()
    for block in RUN.blocks(4):
        sample.add(block)
        assert sum(response.tokens for response in sample._kept) <= BUDGET


def test_an_empty_log_has_no_evidence() -> None:
    assert TokenSample().evidence() is None


def test_a_lag_below_0_is_no_evidence_and_is_said() -> None:
    rows = sampled_rows(6, seed=3)
    columns = rows | {"policy_version": [1, 1, 2, 2, 3, 9], "trainer_version": [3] * 6}
    (block,) = blocks_of(log_batch(**columns), Rejected())
    sample = sample_of([block])
    assert "lag" not in evidence_of(sample).metadata and "policy_version" in evidence_of(sample).metadata
    (said,) = sample.contradictions
    assert said == "by lag: 1 response was sampled by later weights than the trainer's, says the log"
    (sound,) = blocks_of(log_batch(**columns | {"policy_version": [1, 1, 2, 2, 3, 3]}), Rejected())
    assert "lag" in evidence_of(sample_of([sound])).metadata and not sample_of([sound]).contradictions


def test_versions_by_token_are_evidence_where_every_token_has_one() -> None:
    evidence = evidence_of(sample_of([RUN.block()]))
    np.testing.assert_array_equal(evidence.version_N, RUN.version_N[RUN.mask_N])
    rows = {"behavior_logprobs": [[-1.0, -2.0]], "reference_logprobs": [[-1.1, -2.1]], "versions": [[3, None]]}
    (block,) = blocks_of(log_batch(**rows), Rejected())
    assert evidence_of(sample_of([block])).version_N is None
