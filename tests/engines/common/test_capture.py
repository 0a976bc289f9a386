"""The reduction of logits to evidence, against float64 loops.

Shapes: N rows, V vocabulary, K observed ids, T response tokens.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mismatchscope.engines.common.capture import (
    Recorder,
    TaskRecorder,
    log_softmax,
    logprobs_at,
    tail_overlap,
    top_k,
)
from mismatchscope.engines.common.sampling import process_logits
from mismatchscope.errors import EngineError
from mismatchscope.records import Evidence, Request, Sampling, Task


def random_logprobs(rows: int, vocabulary: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return log_softmax(3 * torch.randn(rows, vocabulary, generator=generator))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_normaliser_is_exact_to_float32_rounding_on_a_large_vocabulary(dtype: torch.dtype) -> None:
    logits_NV = (3 * torch.randn(4, 151_936, generator=torch.Generator().manual_seed(0))).to(dtype)
    logp_NV = log_softmax(logits_NV)
    for logits_V, logp_V in zip(logits_NV.double().tolist(), logp_NV.double().tolist(), strict=True):
        normaliser = math.log(math.fsum(math.exp(logit) for logit in logits_V))
        bias = math.fsum(logp - (logit - normaliser) for logp, logit in zip(logp_V, logits_V, strict=True))
        assert abs(bias / len(logits_V)) <= 2**-24 * 32  # half an ulp of a normaliser between 16 and 32
        assert abs(1 - math.fsum(map(math.exp, logp_V))) <= 2e-6


def test_top_k_falls_and_pads_what_has_no_probability() -> None:
    logits_NV = torch.tensor([[0.0, 2.0, -torch.inf, 1.0], [-torch.inf, -torch.inf, 5.0, -torch.inf]])
    ids_NK, logp_NK = top_k(log_softmax(logits_NV), 6)
    assert ids_NK.tolist() == [[1, 3, 0, -1, -1, -1], [2, -1, -1, -1, -1, -1]]
    assert torch.isnan(logp_NK[0, 3:]).all() and torch.isnan(logp_NK[1, 1:]).all()
    assert logp_NK[1, 0] == 0


def test_logprobs_at_given_ids_skip_padding() -> None:
    logp_NV = random_logprobs(1, 5)
    found_NK = logprobs_at(logp_NV, torch.tensor([[4, 0, -1]]))
    assert found_NK[0, :2].tolist() == [logp_NV[0, 4].item(), logp_NV[0, 0].item()]
    assert torch.isnan(found_NK[0, 2])


@settings(max_examples=60, deadline=None)
@given(
    vocabulary=st.integers(1, 30),
    observed=st.integers(0, 30),
    padding=st.integers(0, 3),
    kth=st.floats(-12, 0),
    seed=st.integers(0, 1000),
)
def test_tail_overlap_is_the_sum_over_the_unobserved_ids(
    vocabulary: int, observed: int, padding: int, kth: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.permutation(vocabulary)[: min(observed, vocabulary)].tolist()
    token = int(rng.integers(vocabulary))  # may be among the observed ids or not
    logp_NV = random_logprobs(1, vocabulary, seed)
    found = tail_overlap(
        logp_NV,
        torch.tensor([ids + [-1] * padding], dtype=torch.int64),
        torch.tensor([token]),
        torch.tensor([kth], dtype=torch.float64),
    )
    rest = set(range(vocabulary)) - {token, *ids}
    expected = math.fsum(min(math.exp(logp_NV[0, a].item()), math.exp(kth)) for a in rest)
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_tail_overlap_is_zero_when_mu_excludes_the_rest_and_unknown_when_its_bound_is() -> None:
    logp_NV = random_logprobs(2, 8)
    ids_NK, token_N = torch.zeros(2, 1, dtype=torch.int64), torch.ones(2, dtype=torch.int64)
    found_N = tail_overlap(logp_NV, ids_NK, token_N, torch.tensor([-math.inf, math.nan], dtype=torch.float64))
    assert found_N[0] == 0 and torch.isnan(found_N[1])


@pytest.mark.parametrize("evidence", [Evidence("sampled"), Evidence("topk", k=3), Evidence("full", fraction=0.5)])
def test_recorder_gives_the_same_by_position_and_by_sequence(evidence: Evidence) -> None:
    lengths, vocabulary = [3, 7, 5], 11
    requests = [Request(sequence_id=10 + row, prompt_id=0) for row in range(3)]
    logp = {row: random_logprobs(length, vocabulary, row) for row, length in enumerate(lengths)}
    tokens = {row: torch.arange(length) for row, length in enumerate(lengths)}

    by_position = Recorder(evidence, requests, 20)  # room for more than is used, as while sampling
    for position in range(max(lengths)):
        rows = np.array([row for row in range(3) if position < lengths[row]])
        logp_NV = torch.stack([logp[row][position] for row in rows])
        token_N = torch.stack([tokens[row][position] for row in rows])
        by_position.add(rows, np.full(len(rows), position), logp_NV, token_N)

    by_sequence = Recorder(evidence, requests, max(lengths))
    sequence_N = np.repeat(np.arange(3), lengths)
    position_N = np.concatenate([np.arange(length) for length in lengths])
    for part in (slice(0, 4), slice(4, 9), slice(9, 15)):
        by_sequence.add(
            sequence_N[part],
            position_N[part],
            torch.cat(list(logp.values()))[part],
            position_as_token(position_N[part]),
        )

    for row, length in enumerate(lengths):
        left, right = by_position.finish(row, length), by_sequence.finish(row, length)
        for name, value in vars(left).items():
            np.testing.assert_array_equal(value, getattr(right, name), err_msg=name)
        np.testing.assert_array_equal(left.logprob_T, logp[row].diagonal().double())
        if evidence.level == "full":
            kept = np.flatnonzero(evidence.keeps_full(10 + row, length))
            np.testing.assert_array_equal(left.full_row_R, kept)
            np.testing.assert_array_equal(left.full_logprobs_RV, logp[row].numpy()[kept])


def position_as_token(position_N: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(position_N)


def test_recorder_reports_at_the_ids_asked_for() -> None:
    asked = [np.array([[4, 2], [0, -1]], dtype=np.int32), np.array([[1, 3, 5]], dtype=np.int32)]
    kth = [np.array([-1.0, -np.inf]), np.array([-2.0])]
    requests = [Request(i, i, observed_ids_TK=asked[i], kth_logprob_T=kth[i]) for i in range(2)]
    recorder = Recorder(Evidence("topk", k=2), requests, 2)
    logp_NV = random_logprobs(3, 6)
    recorder.add(np.array([0, 0, 1]), np.array([0, 1, 0]), logp_NV, torch.tensor([5, 0, 2]))
    first, second = recorder.finish(0, 2), recorder.finish(1, 1)
    np.testing.assert_array_equal(first.topk_ids_TK, [[4, 2, -1], [0, -1, -1]])
    np.testing.assert_array_equal(first.topk_logprobs_TK[0, :2], logp_NV[0, [4, 2]].double())
    np.testing.assert_array_equal(second.topk_logprobs_TK[0], logp_NV[2, [1, 3, 5]].double())
    assert first.tail_overlap_T[0] == pytest.approx(
        sum(min(math.exp(logp_NV[0, a]), math.exp(-1)) for a in (0, 1, 3)), abs=1e-6
    )
    assert first.tail_overlap_T[1] == 0


def test_recorder_refuses_a_batch_where_some_ask_for_ids() -> None:
    requests = [Request(0, 0, observed_ids_TK=np.zeros((1, 1), dtype=np.int32)), Request(1, 0)]
    with pytest.raises(EngineError, match="some do not"):
        Recorder(Evidence("topk", k=1), requests, 1)


def test_recorder_refuses_a_sequence_with_a_hole() -> None:
    recorder = Recorder(Evidence("full"), [Request(0, 0)], 2)
    recorder.add(np.array([0]), np.array([0]), random_logprobs(1, 4), torch.tensor([0]))
    with pytest.raises(EngineError, match="1 distributions"):
        recorder.finish(0, 2)


@pytest.mark.parametrize(
    "evidence",
    [
        Evidence("sampled"),
        Evidence("topk", k=4),
        Evidence("full"),
        Evidence("full", fraction=0.4, seed=3),
        Evidence("full", fraction=1e-9),
    ],
    ids=["sampled", "top-4", "full", "a share", "none"],
)
def test_what_is_recorded_may_be_overwritten(evidence: Evidence) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths, vocabulary = (5, 9, 1, 7), 13
    requests = [Request(10 + row, row) for row in range(len(lengths))]
    recorders = [Recorder(evidence, requests, max(lengths)) for _ in range(2)]
    reused_NV = torch.empty(len(lengths), vocabulary)
    for position in range(max(lengths)):
        row_N = np.array([row for row, length in enumerate(lengths) if position < length][::-1])
        logp_NV = log_softmax(torch.randn(len(row_N), vocabulary, generator=generator))
        token_N = torch.randint(vocabulary, (len(row_N),), generator=generator)
        for recorder, rows in zip(recorders, (reused_NV[: len(row_N)].copy_(logp_NV), logp_NV), strict=True):
            recorder.add(row_N, np.full_like(row_N, position), rows, token_N)
        reused_NV.fill_(torch.nan)
    for row, length in enumerate(lengths):
        left, right = (vars(recorder.finish(row, length)) for recorder in recorders)
        assert left.keys() == right.keys()
        for name, value in left.items():
            if name == "full_logprobs_RV" and value is not None:
                assert value.flags.c_contiguous
            np.testing.assert_array_equal(value, right[name], err_msg=name)


@pytest.mark.parametrize("policy", ["raw", "processed"])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0.6, top_k=3), Sampling(temperature=0)])
def test_a_task_records_the_policies_that_it_is_about(policy: str, sampling: Sampling) -> None:
    """A rollout: the one sampled from, and the raw one where that is another. A score: the one it names."""
    logits_NV = 3 * torch.randn(4, 9, generator=torch.Generator().manual_seed(0))
    raw_NV, processed_NV = log_softmax(logits_NV), log_softmax(process_logits(logits_NV, sampling))
    token_N = logits_NV.argmax(dim=1)
    for kind in ("rollout", "score"):
        task = Task("t", kind, "", "", Evidence("full"), policy, sampling)
        recorder = TaskRecorder(task, [Request(row, row) for row in range(4)], 1)
        logprobs = recorder.logprobs(logits_NV)
        recorder.add(np.arange(4), np.zeros(4, dtype=int), logprobs, token_N)
        seen_NV = np.concatenate([recorder.finish(row, 1)[0].full_logprobs_RV for row in range(4)])
        expected = processed_NV if kind == "rollout" or policy == "processed" else raw_NV
        assert torch.equal(logprobs[0], expected)
        np.testing.assert_array_equal(seen_NV, expected)
        assert len(logprobs) == (2 if kind == "rollout" and sampling.transforms else 1)
        assert torch.equal(logprobs[-1], raw_NV) or kind == "score"
