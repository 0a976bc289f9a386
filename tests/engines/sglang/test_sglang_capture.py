"""What is recorded inside SGLang, with a stand-in for its scheduler.

Shapes: T response tokens, K observed ids, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sglang_scheduler import (
    EOS,
    LENGTHS,
    SAMPLED,
    SAMPLINGS,
    TOPK,
    VOCABULARY,
    Scheduler,
    batch,
    logits_after,
    rollout,
    score,
)

from mismatchscope.engines.common.sampling import process_logits, uniforms
from mismatchscope.engines.sglang.capture import Capture
from mismatchscope.errors import EngineError
from mismatchscope.records import Sampling, SequenceRecord


def expected(row: int, record: SequenceRecord, sampling: Sampling | None) -> np.ndarray:
    """Log-probs [T, V] of the stand-in's model after every prefix, in float64; raw where there is no sampling."""
    prefix = list(record.prompt_token_ids)
    rows = []
    for token in record.response_token_ids.tolist():
        logits = logits_after(row, prefix)
        if sampling is not None:
            logits = process_logits(logits[None], sampling)[0]
        values = logits.double().tolist()
        largest = max(values)
        total = math.fsum(math.exp(value - largest) for value in values)
        rows.append([value - largest - math.log(total) for value in values])
        prefix.append(token)
    return np.array(rows)


def close(left: np.ndarray, right: np.ndarray) -> None:
    np.testing.assert_allclose(left, right, atol=2e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(SAMPLINGS))
def test_a_rollout_draws_from_what_it_records(seed: int, sampling: Sampling) -> None:
    work = batch(rollout(sampling=sampling))
    records = Scheduler(work, seed).decode()
    assert set(records) == {request.sequence_id for request in work.requests}
    for row, request in enumerate(work.requests):
        record = records[request.sequence_id]
        logp_TV = record.observed.full_logprobs_RV
        close(logp_TV, expected(row, record, sampling))
        uniform_T = uniforms(sampling.seed, [request.sequence_id], 9)[0]
        for t, token in enumerate(record.response_token_ids.tolist()):
            p_V = np.exp(logp_TV[t].astype(float))
            below = math.fsum(p_V[:token])
            assert p_V[token] > 0
            assert below - 1e-6 <= uniform_T[t] * math.fsum(p_V) <= below + p_V[token] + 1e-6
        own = np.take_along_axis(logp_TV, record.response_token_ids[:, None].astype(int), axis=1)[:, 0]
        np.testing.assert_array_equal(record.observed.logprob_T, own)
        stopped = record.response_token_ids == EOS
        assert not stopped[:-1].any() and record.finish_reason == ("stop" if stopped[-1] else "length")
        assert stopped[-1] or len(stopped) == 9
        assert (record.raw is not None) == sampling.transforms
        if record.raw is not None:
            close(record.raw.full_logprobs_RV, expected(row, record, None))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_the_order_of_the_steps_changes_no_draw(first: int, second: int) -> None:
    left, right = (Scheduler(batch(rollout(SAMPLED)), seed).decode() for seed in (first, second))
    for i, record in left.items():
        np.testing.assert_array_equal(record.response_token_ids, right[i].response_token_ids)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["decode", "prefill"]),
    st.sampled_from(["raw", "processed"]),
    st.sampled_from(SAMPLINGS),
)
def test_a_score_records_every_given_token(seed: int, path: str, policy: str, sampling: Sampling) -> None:
    work = batch(score(path, policy=policy, sampling=sampling))
    scheduler = Scheduler(work, seed)
    records = scheduler.decode() if path == "decode" else scheduler.prefill()
    for row, request in enumerate(work.requests):
        record = records[request.sequence_id]
        np.testing.assert_array_equal(record.response_token_ids, request.response_token_ids)
        close(record.observed.full_logprobs_RV, expected(row, record, None if policy == "raw" else sampling))
        assert record.raw is None


def test_top_k_evidence_is_of_the_asked_ids(seed: int = 3) -> None:
    ids_TK = np.array([[4, 1, 9]], dtype=np.int32)
    work = batch(score("prefill", TOPK))
    asked = [
        replace(
            request,
            observed_ids_TK=np.repeat(ids_TK, len(request.response_token_ids), axis=0),
            kth_logprob_T=np.full(len(request.response_token_ids), -3.0),
        )
        for request in work.requests
    ]
    records = Scheduler(replace(work, requests=asked), seed).prefill()
    for row, request in enumerate(asked):
        record = records[request.sequence_id]
        logp_TV = expected(row, record, None)
        close(record.observed.topk_logprobs_TK, logp_TV[:, ids_TK[0]])
        for t, token in enumerate(record.response_token_ids.tolist()):
            rest = [a for a in range(VOCABULARY) if a not in {4, 1, 9, token}]
            tail = math.fsum(min(math.exp(logp_TV[t, a]), math.exp(-3.0)) for a in rest)
            assert record.observed.tail_overlap_T[t] == pytest.approx(tail, abs=1e-6)


def test_a_process_that_does_not_record_draws_the_same() -> None:
    drawn = []
    for put in (lambda record: None, None):
        capture = Capture(batch(rollout()), put)
        lengths = np.array([prompt for prompt, _ in LENGTHS])
        logits = torch.stack([logits_after(row, [1]) for row in range(4)])
        drawn.append(capture.sample(np.arange(4), lengths, logits).tolist())
    assert drawn[0] == drawn[1]


def test_a_prompt_that_came_from_a_cache_is_an_error() -> None:
    capture = Capture(batch(score("prefill")), lambda record: None)
    with pytest.raises(EngineError, match="skipped"):
        capture.prefill(np.array([1]), np.array([8]), np.array([2]), torch.zeros(2, VOCABULARY).__getitem__)


def test_logits_that_are_not_finite_are_named() -> None:
    capture = Capture(batch(rollout()), lambda record: None)
    with pytest.raises(EngineError, match="not finite") as caught:
        capture.sample(np.array([0]), np.array([1]), torch.full((1, VOCABULARY), torch.nan))
    assert "float32" in caught.value.hint
