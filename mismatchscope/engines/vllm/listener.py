"""Listening inside vLLM: at the two places where its model runner has logits, before anything is made of them.

Both of its model runners, V1 and V2, hand the logits of every step to a sampler, one row a request, and its hidden
states to a function that makes prompt log-probs of them. `install` puts a listener at either place.

The functions without an underscore run in every process of vLLM's (`LLM.collective_rpc`). All of them listen, since
with tensor parallelism each draws for itself and each holds a part of the head; the first one records.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import EngineError
from ...records import Observed, Task
from ..common.tokenized import TokenizedRequest
from .capture import Capture, Step

PREFILL_CHUNK = 256
"""Positions whose logits exist at the same time when a prefill is scored."""


class Listener:
    """What the two places in a model runner call. Between batches it lets everything pass."""

    def __init__(self, rank: int) -> None:
        self.records = rank == 0
        self.forces = True
        self.capture: Capture | None = None

    def sample(self, step: Callable[[], Step], logits: Tensor, draw: Callable[[], Any]) -> Any:
        """Let vLLM draw, record what from, and put forced tokens in the place of what it drew."""
        capture = self.capture
        if capture is None or capture.prefill:
            return draw()
        rows = capture.sampled_rows(step())
        if not len(rows):
            return draw()
        logprobs = capture.logprobs(rows.of(logits))
        output = draw()
        token_S = output.sampled_token_ids[:, 0]
        forced_N = capture.forced_tokens(rows)
        if forced_N is not None and self.forces:
            token_S[torch.from_numpy(rows.index_N).to(token_S.device)] = forced_N.to(token_S)
        capture.add(rows, logprobs, rows.of(token_S))
        return output

    def prefill(self, step: Callable[[], Step], hidden: Tensor, compute_logits: Callable[[Tensor], Tensor]) -> None:
        """Record the response positions of a step from its hidden states, a chunk of them at a time."""
        capture = self.capture
        if capture is None or not capture.prefill:
            return
        rows = capture.prefilled_rows(step())
        for start in range(0, len(rows), PREFILL_CHUNK):
            chunk = rows[start : start + PREFILL_CHUNK]
            logprobs = capture.logprobs(compute_logits(chunk.of(hidden)))
            forced_N = capture.forced_tokens(chunk)
            assert forced_N is not None, "a prefill scores given tokens"
            capture.add(chunk, logprobs, forced_N)


class ListeningSampler:
    """Stands in for a model runner's sampler; whatever else is asked of it goes to the original."""

    def __init__(self, sampler: Any, sample: Callable[..., Any]) -> None:
        self._sampler = sampler
        self._sample = sample

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._sample(lambda: self._sampler(*args, **kwargs), *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sampler, name)


def install(worker: Any) -> None:
    """Listen in this process. Raises `EngineError` for a vLLM that is built otherwise than those known."""
    runner = worker.model_runner
    listener = Listener(worker.rank)
    try:
        (_install_v2 if hasattr(runner, "prompt_logprobs_worker") else _install_v1)(runner, listener)
    except AttributeError as error:
        raise EngineError(
            f"this vLLM is built otherwise than 0.27 to 0.33, whose inside mismatchscope knows: {error}",
            hint="mismatchscope env create vllm makes an environment of a version that it knows",
        ) from error
    runner.mismatchscope = listener


def begin(
    worker: Any, task: Task, requests: Sequence[TokenizedRequest], length_B: np.ndarray, forces: bool = True
) -> None:
    """Record a batch; `length_B` is the most tokens of each response. Unless it `forces` them, vLLM does."""
    listener = worker.model_runner.mismatchscope
    listener.forces = forces
    listener.capture = Capture(task, requests, length_B, record=listener.records)


def finish(worker: Any, row: int, length: int) -> list[Observed]:
    """What was seen of one sequence for each recorded policy; nothing in a process that does not record."""
    return worker.model_runner.mismatchscope.capture.finish(row, length)


def end(worker: Any) -> None:
    worker.model_runner.mismatchscope.capture = None


def _install_v1(runner: Any, listener: Listener) -> None:
    prompt_logprobs = runner._get_prompt_logprobs_dict
    aside: dict[int, torch.Generator] = {}

    def step() -> Step:
        batch = runner.input_batch
        return Step.of(batch.req_ids, batch.num_computed_tokens_cpu, runner.query_start_loc.np)

    def sample(draw: Callable[[], Any], logits: Tensor, **_: Any) -> Any:
        if runner.device.type == "cpu":
            generators = runner.input_batch.generators
            discarded_S = runner.discard_request_mask.np[: len(runner.input_batch.req_ids)]
            discarded = np.flatnonzero(discarded_S).tolist()
            aside.update({index: generators[index] for index in discarded if index in generators})
            generators.update({index: _SpareGenerator() for index in aside})
        return listener.sample(step, logits, draw)

    def get_prompt_logprobs_dict(hidden: Tensor, *args: Any) -> Any:
        runner.input_batch.generators.update(aside)
        aside.clear()
        listener.prefill(step, hidden, for_any_states(runner, runner.model.compute_logits))
        return prompt_logprobs(hidden, *args)

    runner.sampler = ListeningSampler(runner.sampler, sample)
    runner._get_prompt_logprobs_dict = get_prompt_logprobs_dict


def for_any_states(runner: Any, compute_logits: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A model's head for any number of states.

    With LoRA vLLM's own takes one a request, to add what an adapter does to the head; the engine refuses an adapter
    that does anything there.
    """
    if getattr(runner, "lora_config", None) is None:
        return compute_logits
    modules = runner.model.modules()
    wrappers = [module for module in modules if hasattr(module, "_get_logits") and hasattr(module, "base_layer")]

    def compute(hidden: Tensor) -> Tensor:
        try:
            for wrapper in wrappers:
                wrapper._get_logits = wrapper.base_layer._get_logits
            return compute_logits(hidden)
        finally:
            for wrapper in wrappers:
                del wrapper._get_logits

    return compute


class _SpareGenerator(torch.Generator):
    """For a request of which only part of the prompt has been read: what it draws is thrown away.

    vLLM then rewinds the request's generator, which torch cannot do on a CPU, so the true one is kept out of it.
    """

    def get_offset(self) -> int:
        return 0

    def set_offset(self, offset: int) -> torch.Generator:
        return self


def _install_v2(runner: Any, listener: Listener) -> None:
    prompts = runner.prompt_logprobs_worker
    prompt_logprobs = prompts.compute_prompt_logprobs

    def step(batch: Any) -> Step:
        return Step.of(batch.req_ids, batch.num_computed_tokens_np, batch.query_start_loc_np)

    def sample(draw: Callable[[], Any], logits: Tensor, batch: Any) -> Any:
        return listener.sample(lambda: step(batch), logits, draw)

    def compute_prompt_logprobs(
        compute_logits: Callable[[Tensor], Tensor], hidden: Tensor, batch: Any, *args: Any
    ) -> Any:
        listener.prefill(lambda: step(batch), hidden, for_any_states(runner, compute_logits))
        return prompt_logprobs(compute_logits, hidden, batch, *args)

    runner.sampler = ListeningSampler(runner.sampler, sample)
    prompts.compute_prompt_logprobs = compute_prompt_logprobs
