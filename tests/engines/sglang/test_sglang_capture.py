"""What is recorded inside SGLang, with a stand-in for its scheduler.

Shapes: B requests, S requests of a step, T response tokens, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mismatchscope.engines.common.sampling import process_logits, uniforms
from mismatchscope.engines.sglang.capture import Capture
from mismatchscope.engines.sglang.exchange import Batch
from mismatchscope.errors import EngineError
from mismatchscope.records import Evidence, Request, Sampling, SequenceRecord, Task

VOCABULARY = 11
LENGTHS = ((1, 3), (7, 5), (4, 1), (12, 4))  # of the prompts and of the responses
FULL, TOPK, SAMPLED = Evidence("full"), Evidence("topk", k=3), Evidence("sampled")
SAMPLINGS = tuple(
    Sampling(temperature, top_p, top_k, max_new_tokens=9)
    for temperature, top_p, top_k in ((1.0, 1.0, 0), (0.6, 0.7, 0), (1.5, 0.9, 4), (0.0, 1.0, 0))
)
EOS = 2


def logits_after(row: int, prefix: list[int]) -> torch.Tensor:
    """What the stand-in's model computes of a prefix: a random [V] that the request and the tokens decide."""
    return torch.from_numpy(np.random.default_rng([row, *prefix]).normal(size=VOCABULARY).astype(np.float32))


def requests(*, scored: bool) -> list[Request]:
    rng = np.random.default_rng(0)
    made = []
    for row, (prompt, response) in enumerate(LENGTHS):
        ids = rng.integers(3, VOCABULARY, prompt + response).astype(np.int32)
        made.append(Request(10 + row, row, ids[:prompt], response_token_ids=ids[prompt:] if scored else None))
    return made


def batch(task: Task, number: int = 0) -> Batch:
    asked = requests(scored=task.kind == "score")
    lengths = [response if task.kind == "score" else task.sampling.max_new_tokens for _, response in LENGTHS]
    return Batch(number, task, asked, lengths, [EOS] if task.kind == "rollout" else [])


def rollout(evidence: Evidence = FULL, sampling: Sampling = SAMPLINGS[0]) -> Task:
    return Task("roll", "rollout", "", "", evidence, sampling=sampling)


def score(path: str, evidence: Evidence = FULL, policy: str = "raw", sampling: Sampling = SAMPLINGS[0]) -> Task:
    return Task("score", "score", "", "", evidence, policy, sampling, path)


class Scheduler:
    """Runs a batch in steps of its own choice: prompts in pieces, evictions, and a step too many at every end."""

    def __init__(self, work: Batch, seed: int) -> None:
        self.records: dict[int, SequenceRecord] = {}
        self.capture = Capture(work, lambda record: self.records.update({record.sequence_id: record}))
        self.work, self.rng = work, np.random.default_rng(seed)
        self.known = [list(request.prompt_token_ids) for request in work.requests]
        self.full = [len(known) + length for known, length in zip(self.known, work.lengths, strict=True)]
        self.computed = [0] * len(self.known)
        self.late: set[int] = set()
        self.forgotten: dict[int, int] = {}

    def decode(self) -> dict[int, SequenceRecord]:
        for _ in range(500):
            going_on = [row for row in range(len(self.known)) if not self.ended(row)]
            if not going_on:
                return self.records
            if self.rng.random() < 0.1:
                self.evict(self.rng.choice(going_on))
            rows = self.rng.permutation(going_on)[: self.rng.integers(1, len(going_on) + 1)].tolist()
            rows += sorted(self.late)
            self.step(rows)
        raise AssertionError("the batch does not end")

    def ended(self, row: int) -> bool:
        known, prompt = self.known[row], len(self.work.requests[row].prompt_token_ids)
        return len(known) == self.full[row] or (len(known) > prompt and known[-1] in self.work.stop_ids)

    def evict(self, row: int) -> None:
        """Forget what was computed of a sequence, and the token that was drawn last, if it was not read yet."""
        self.computed[row] = 0
        if len(self.known[row]) > len(self.work.requests[row].prompt_token_ids) and self.rng.random() < 0.5:
            self.forgotten[row] = self.known[row].pop()

    def step(self, rows: list[int]) -> None:
        ends = [
            len(self.known[row])
            if row in self.late
            else int(self.rng.integers(self.computed[row], len(self.known[row]))) + 1
            for row in rows
        ]
        logits = torch.stack(
            [logits_after(row, self.known[row][:end]) for row, end in zip(rows, ends, strict=True)]
        )
        given = logits.clone()
        tokens = self.capture.sample(np.array(rows), np.array(ends), logits).tolist()
        assert torch.equal(logits, given), "SGLang goes on with its logits"
        for row, end, token in zip(rows, ends, tokens, strict=True):
            self.computed[row] = end
            if row in self.late:
                self.late.remove(row)
            elif end == len(self.known[row]):
                self.known[row].append(token)
                assert self.forgotten.pop(row, token) == token, "what was drawn once stays"
                if self.ended(row):
                    self.late.add(row)

    def prefill(self) -> dict[int, SequenceRecord]:
        whole = [[*r.prompt_token_ids, *r.response_token_ids[:-1]] for r in self.work.requests]
        while going_on := [row for row, ids in enumerate(whole) if self.computed[row] < len(ids)]:
            rows = self.rng.permutation(going_on)[: self.rng.integers(1, len(going_on) + 1)].tolist()
            starts = [self.computed[row] for row in rows]
            ends = [int(self.rng.integers(self.computed[row], len(whole[row]))) + 1 for row in rows]
            spans = zip(rows, starts, ends, strict=True)
            states = torch.stack([logits_after(r, whole[r][: p + 1]) for r, s, e in spans for p in range(s, e)])
            counts = np.subtract(ends, starts)
            self.capture.prefill(np.array(rows), np.array(starts), counts, states.__getitem__)
            for row, end in zip(rows, ends, strict=True):
                self.computed[row] = end
        return self.records


def expected(row: int, record: SequenceRecord, sampling: Sampling | None) -> np.ndarray:
    """Log-probs [T, V] of the stand-in's model after every prefix, in float64; raw where there is no sampling."""
    prefix = list(record.prompt_token_ids)
    rows = []
    for token in record.response_token_ids.tolist():
        logits = logits_after(row, prefix)
        if sampling is not None:
            logits = process_logits(logits[None], sampling, at_once=True)[0]
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
