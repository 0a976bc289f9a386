"""Recording inside vLLM's model runners, on stand-ins that schedule at random: prompts in parts, some evicted.

Shapes: T response tokens, V vocabulary. The stand-in's head is the identity: a hidden state is a row of logits.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mismatchscope.engines.common.sampling import process_logits
from mismatchscope.engines.common.tokenized import ScoreRequest, TokenizedRequest
from mismatchscope.engines.vllm import listener as vllm_listener
from mismatchscope.errors import EngineError
from mismatchscope.records import Evidence, Sampling, SequenceRecord, Task

VOCABULARY = 11
LENGTHS = ((1, 3), (7, 5), (4, 1), (12, 4))  # of the prompts and of the responses
FULL = Evidence("full")
GREEDY = Sampling(temperature=0)


def logits_after(row: int, prefix: list[int]) -> torch.Tensor:
    """What the stand-in's model computes of a prefix: a random [V] that the request and the tokens decide."""
    return torch.from_numpy(np.random.default_rng([row, *prefix]).normal(size=VOCABULARY).astype(np.float32))


class Runner:
    """Requests, how many of their known tokens are computed, and a scheduler that does what it likes."""

    def __init__(self, prompts: list[list[int]], lengths: list[int], seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.known = [list(prompt) for prompt in prompts]
        self.full = [len(prompt) + length for prompt, length in zip(prompts, lengths, strict=True)]
        self.computed = [0] * len(prompts)
        self.device = torch.device("cpu")
        self.model = SimpleNamespace(compute_logits=lambda hidden: hidden.clone())

    def step(self) -> list[int]:
        """Compute some tokens of some requests, in any order; the rows that this finishes."""
        going_on = [row for row, known in enumerate(self.known) if len(known) < self.full[row]]
        if self.rng.random() < 0.15:
            self.computed[self.rng.choice(going_on)] = 0  # evicted
        rows = self.rng.permutation(going_on)[: self.rng.integers(1, len(going_on) + 1)].tolist()
        starts = [self.computed[row] for row in rows]
        ends = [int(self.rng.integers(self.computed[row], len(self.known[row]))) + 1 for row in rows]
        spans = list(zip(rows, starts, ends, strict=True))
        hidden = torch.stack([logits_after(r, self.known[r][: p + 1]) for r, s, e in spans for p in range(s, e)])
        query_start = np.concatenate([[0], np.cumsum(np.subtract(ends, starts))]).astype(np.int32)
        partial = [end < len(self.known[row]) for row, _, end in spans]
        tokens = self.execute([f"{row}-7f3a" for row in rows], starts, query_start, partial, hidden)
        for (row, _, end), token, ignored in zip(spans, tokens, partial, strict=True):
            self.computed[row] = end
            if not ignored:
                self.known[row].append(token)
        return [row for row in rows if len(self.known[row]) == self.full[row]]

    def draw(self, logits: torch.Tensor) -> SimpleNamespace:
        """vLLM's sampler: it overwrites its logits, and what it gives out is what the next step goes on with."""
        tokens = self.rng.integers(1, VOCABULARY, len(logits))
        logits.fill_(-torch.inf)
        return SimpleNamespace(sampled_token_ids=torch.from_numpy(tokens.astype(np.int32))[:, None])


class RunnerV1(Runner):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.sampler = self._sampler

    def _sampler(self, logits: torch.Tensor, sampling_metadata: None) -> SimpleNamespace:
        for generator in self.input_batch.generators.values():
            torch.rand(1, generator=generator)
        return self.draw(logits)

    def _get_prompt_logprobs_dict(self, hidden: torch.Tensor, scheduled: dict[str, int]) -> str:
        return "vLLM's own"

    def execute(
        self, ids: list[str], starts: list[int], query_start: np.ndarray, partial: list[bool], hidden: torch.Tensor
    ) -> list[int]:
        generators = {index: torch.Generator().manual_seed(0) for index in range(len(ids))}
        self.input_batch = SimpleNamespace(
            req_ids=ids, num_computed_tokens_cpu=np.array([*starts, 99], np.int32), generators=dict(generators)
        )
        self.query_start_loc = SimpleNamespace(np=np.concatenate([query_start, [99, 99]]))  # longer than the step
        self.discard_request_mask = SimpleNamespace(np=np.array([*partial, True]))
        output = self.sampler(logits=hidden[query_start[1:] - 1].clone(), sampling_metadata=None)
        for index in np.flatnonzero(partial):
            generator = self.input_batch.generators[index]
            generator.set_offset(generator.get_offset() - 4)  # which torch refuses on a CPU
        assert self._get_prompt_logprobs_dict(hidden, {}) == "vLLM's own"
        assert self.input_batch.generators == generators
        fresh = torch.Generator().manual_seed(0).get_state()
        for index, generator in generators.items():
            assert torch.equal(generator.get_state(), fresh) == partial[index], "one number for one token"
        return output.sampled_token_ids[:, 0].tolist()


class RunnerV2(Runner):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.sampler = lambda logits, batch: self.draw(logits)
        self.prompt_logprobs_worker = SimpleNamespace(compute_prompt_logprobs=lambda *_: "vLLM's own")

    def execute(
        self, ids: list[str], starts: list[int], query_start: np.ndarray, partial: list[bool], hidden: torch.Tensor
    ) -> list[int]:
        batch = SimpleNamespace(
            req_ids=ids, num_computed_tokens_np=np.array(starts), query_start_loc_np=query_start
        )
        output = self.sampler(hidden[query_start[1:] - 1].clone(), batch)
        padded = torch.cat([hidden, torch.full((3, VOCABULARY), torch.nan)])
        prompt_logprobs = self.prompt_logprobs_worker.compute_prompt_logprobs
        assert prompt_logprobs(self.model.compute_logits, padded, batch, None) == "vLLM's own"
        return output.sampled_token_ids[:, 0].tolist()


def record(runner_type: type[Runner], task: Task, seed: int) -> list[SequenceRecord]:
    """What is recorded of one batch."""
    rng = np.random.default_rng([seed, 1])
    answers = [rng.integers(1, VOCABULARY, response).astype(np.int32) for _, response in LENGTHS]
    batch = [
        ScoreRequest(10 + i, i, rng.integers(1, VOCABULARY, prompt).astype(np.int32), response_token_ids=answers[i])
        for i, (prompt, _) in enumerate(LENGTHS)
    ]
    prompts, length_B = [request.prompt_token_ids.tolist() for request in batch], [len(one) for one in answers]
    if task.kind == "score" and task.path == "prefill":
        whole = [prompt + answer.tolist()[:-1] for prompt, answer in zip(prompts, answers, strict=True)]
        runner = runner_type(whole, [1] * len(batch), seed)
    else:
        runner = runner_type(prompts, length_B, seed)
    worker = SimpleNamespace(model_runner=runner, rank=0)
    vllm_listener.install(worker)
    vllm_listener.begin(worker, task, batch, np.array(length_B))
    records: dict[int, SequenceRecord] = {}
    while len(records) < len(batch):
        for row in runner.step():
            response = answers[row]
            if task.kind == "rollout":
                response = np.array(runner.known[row][len(prompts[row]) :])
            observed, *raw = vllm_listener.finish(worker, row, length_B[row])
            records[row] = SequenceRecord(row, row, batch[row].prompt_token_ids, response, "length", observed)
            records[row].raw = raw[0] if raw else None
            if task.kind == "score" and task.path == "decode":
                assert runner.known[row][len(prompts[row]) :] == answers[row].tolist()
    vllm_listener.end(worker)
    return [records[row] for row in range(len(batch))]


def expected(record: SequenceRecord, sampling: Sampling) -> np.ndarray:
    """Log-probs [T, V] of the policy along a sequence, from the stand-in's model and float64."""
    prompt, response = record.prompt_token_ids.tolist(), record.response_token_ids.tolist()
    rows = [logits_after(record.sequence_id, prompt + response[:position]) for position in range(len(response))]
    return process_logits(torch.stack(rows), sampling).double().log_softmax(dim=1).numpy()


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 2**20), st.sampled_from([RunnerV1, RunnerV2]), st.sampled_from(["rollout", "decode", "prefill"])
)
def test_every_response_token_is_recorded_once(seed: int, runner_type: type[Runner], kind: str) -> None:
    path = "decode" if kind == "decode" else "prefill"
    task = Task("t", "rollout" if kind == "rollout" else "score", "", "", FULL, policy="raw", path=path)
    for one in record(runner_type, task, seed):
        logp_TV = expected(one, Sampling())
        np.testing.assert_allclose(one.observed.full_logprobs_RV, logp_TV, atol=1e-6)
        own_T = np.take_along_axis(logp_TV, one.response_token_ids[:, None].astype(int), axis=1)[:, 0]
        np.testing.assert_allclose(one.observed.logprob_T, own_T, atol=1e-6)
        assert one.raw is None


@pytest.mark.parametrize("runner_type", [RunnerV1, RunnerV2])
def test_the_policy_sampled_from_and_the_raw_one(runner_type: type[Runner]) -> None:
    rollout = Task("t", "rollout", "", "", FULL, sampling=GREEDY)
    for one in record(runner_type, rollout, seed=1):
        np.testing.assert_array_equal(one.observed.full_logprobs_RV, expected(one, GREEDY))
        np.testing.assert_allclose(one.raw.full_logprobs_RV, expected(one, Sampling()), atol=1e-6)
    for policy, sampling in (("raw", Sampling()), ("processed", GREEDY)):
        for one in record(runner_type, Task("t", "score", "", "", FULL, policy, GREEDY, "decode"), seed=1):
            np.testing.assert_allclose(one.observed.full_logprobs_RV, expected(one, sampling), atol=1e-6)
            assert one.raw is None


def test_a_prefill_is_scored_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task("t", "score", "", "", FULL, policy="raw")
    whole = record(RunnerV2, task, seed=2)
    monkeypatch.setattr(vllm_listener, "PREFILL_CHUNK", 2)
    for left, right in zip(record(RunnerV2, task, seed=2), whole, strict=True):
        np.testing.assert_array_equal(left.observed.full_logprobs_RV, right.observed.full_logprobs_RV)


def test_the_other_processes_force_and_do_not_record() -> None:
    runner = RunnerV2([[1, 2]], [2], 0)
    worker = SimpleNamespace(model_runner=runner, rank=1)
    request = ScoreRequest(0, 0, np.array([1, 2]), response_token_ids=np.array([5, 6]))
    vllm_listener.install(worker)
    vllm_listener.begin(worker, Task("t", "score", "", "", FULL, path="decode"), [request], np.array([2]))
    while not runner.step():
        pass
    assert runner.known[0] == [1, 2, 5, 6]
    assert vllm_listener.finish(worker, 0, 2) == []


def test_a_token_that_nobody_saw_is_an_error() -> None:
    runner = RunnerV1([[1, 2]], [2], 0)
    worker = SimpleNamespace(model_runner=runner, rank=0)
    vllm_listener.install(worker)
    vllm_listener.begin(
        worker, Task("t", "rollout", "", "", FULL), [TokenizedRequest(0, 0, np.array([1, 2]))], np.array([2])
    )
    while not runner.step():
        pass
    with pytest.raises(EngineError, match="gave 3 tokens; 2 were seen"):
        vllm_listener.finish(worker, 0, 3)


def test_a_model_runner_of_another_make_is_refused() -> None:
    with pytest.raises(EngineError, match=r"0\.27 to 0\.33"):
        vllm_listener.install(SimpleNamespace(model_runner=SimpleNamespace(), rank=0))


def test_between_batches_everything_passes() -> None:
    runner = RunnerV1([[1, 2, 3]], [2], 0)
    vllm_listener.install(SimpleNamespace(model_runner=runner, rank=0))
    while not runner.step():
        pass
