"""What runs inside SGLang's scheduler process: it draws or forces every token, and records what from.

SGLang samples outside its CUDA graphs, in `ModelRunner.sample`. A hook of its plugin registry takes that place, so
decoding is SGLang's own up to the logits. Prompts to be scored pass a forward hook on the logits processor (the
argument `forward_hooks`), which puts the model's own head on the states that predict response tokens. Rows are
reduced on their device. With tensor parallelism every rank draws, the same token from the same logits, and the
first one records.

SGLang seeds single requests in its deterministic mode alone, which needs a GPU; otherwise its sampler draws other
tokens in other company. So tokens are drawn here, from (seed, sequence id, position), by the inverse of the very
distribution that is recorded.

Shapes: S requests of a step, N rows recorded, B requests of a batch, T response tokens, H hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import EngineError, ModelError
from ..records import SequenceRecord
from .capture import Recorder, log_softmax
from .sampling import draw, process_logits, uniforms
from .sglang_exchange import Batch, Exchange, parse_request_id

PREFILL_CHUNK = 256
"""Positions whose logits exist at the same time when prompts are scored."""


def run_scheduler(directory: str, *args: Any) -> None:
    """The main function of a scheduler process: SGLang's own, with the hooks in place."""
    from sglang.srt.managers.scheduler import run_scheduler_process
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    listener = _listener(directory)
    for target, hook in (
        ("sglang.srt.managers.scheduler.Scheduler.__init__", listener.start),
        ("sglang.srt.model_executor.model_runner.ModelRunner.sample", listener.sample),
    ):
        HookRegistry.register(target, hook, HookType.AROUND)
    run_scheduler_process(*args)


def prefill_hook(config: dict[str, str]) -> Callable[[Any, tuple[Any, ...], Any], None]:
    """Factory of the forward hook, as `forward_hooks` names it."""
    return _listener(config["directory"]).prefill


@cache
def _listener(directory: str) -> Listener:
    return Listener(Exchange(Path(directory)))


class Listener:
    """The hooks of one process, and the batch that passes them at the moment."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._number = -1
        self._capture: Capture | None = None

    def start(self, original: Callable[..., None], scheduler: Any, *args: Any, **kwargs: Any) -> None:
        """Build the scheduler, and tell the worker how it came out, or why it did not."""
        from sglang.srt.model_executor.model_runner import ModelRunner

        from .sglang_facts import examine

        try:
            original(scheduler, *args, **kwargs)
            if not hasattr(ModelRunner.sample, "__wrapped__"):
                raise EngineError("this SGLang has no plugin hooks on ModelRunner.sample")
            _check_head(scheduler.tp_worker.model_runner.model)
            if _is_first_rank():
                self._exchange.describe(examine(scheduler))
        except Exception as error:
            self._exchange.fail(error)
            raise

    def sample(self, original: Callable[..., Tensor], runner: Any, output: Any, forward_batch: Any) -> Tensor:
        """The next token of every request [S]; in place of SGLang's sampler where the requests are ours."""
        try:
            row_S = self._rows(forward_batch.rids)
            if row_S is None:
                return original(runner, output, forward_batch)
            lengths = forward_batch.seq_lens if forward_batch.seq_lens_cpu is None else forward_batch.seq_lens_cpu
            return self._capture.sample(row_S, lengths.cpu().numpy()[: len(row_S)], output.next_token_logits)
        except Exception as error:
            self._exchange.fail(error)
            raise

    def prefill(self, module: Any, args: tuple[Any, ...], output: Any) -> None:
        """Score the prompts of a forward pass, where that is what they are for."""
        _, hidden_SH, head, forward_batch, *_ = args
        if not forward_batch.forward_mode.is_extend():
            return
        try:
            row_S = self._rows(forward_batch.rids)
            if row_S is None or not self._capture.prefills:
                return
            from sglang.srt.layers.logits_processor import LogitsMetadata
            from sglang.srt.model_executor.forward_batch_info import ForwardMode

            # To the logits processor, every row of a decoding step is the last state of a sequence of its own.
            each_row = LogitsMetadata(forward_mode=ForwardMode.DECODE)
            self._capture.prefill(
                row_S,
                np.asarray(forward_batch.extend_prefix_lens_cpu),
                np.asarray(forward_batch.extend_seq_lens_cpu),
                lambda index_N: module.forward(None, hidden_SH[index_N], head, each_row).next_token_logits,
            )
        except Exception as error:
            self._exchange.fail(error)
            raise

    def _rows(self, request_ids: list[str]) -> np.ndarray | None:
        """The row in the current batch of every request, -1 for what is left of an earlier one; None: not ours."""
        places = [parse_request_id(request_id) for request_id in request_ids]
        if not places or None in places:
            return None
        number = max(number for number, _ in places)
        if number > self._number:
            batch = self._exchange.read(number)
            put = (lambda record: self._exchange.put(number, record)) if _is_first_rank() else None
            self._number, self._capture = number, Capture(batch, put)
        return np.array([row if number == self._number else -1 for number, row in places])


def _check_head(model: Any) -> None:
    """Some models of SGLang's have a head of their own even where the checkpoint has none, and leave it random."""
    config = getattr(model, "config", None)
    if not getattr(config, "tie_word_embeddings", False) or not hasattr(model, "get_embed_and_head"):
        return
    embedding_VH, head_VH = model.get_embed_and_head()
    if embedding_VH.shape == head_VH.shape and not torch.equal(embedding_VH, head_VH):
        raise ModelError(
            f"SGLang's {type(model).__name__} ignores tie_word_embeddings: the checkpoint has no head of its own, "
            "so the model's would be random",
            hint="save the checkpoint with its head: tie_word_embeddings=false and an lm_head.weight",
        )


def _is_first_rank() -> bool:
    from sglang.srt.runtime_context import get_parallel

    return get_parallel().tp_rank == 0


class Capture:
    """The evidence of one batch. Every response position is recorded once, in rising order.

    SGLang computes rows that answer nothing: of prompts that it has not read to the end, and, as it plans a step
    ahead, of sequences that have ended. What counts is the position that is next.
    """

    def __init__(self, batch: Batch, put: Callable[[SequenceRecord], None] | None) -> None:
        self._batch = batch
        self._task = batch.task
        self._put = put
        self._scores = self._task.kind == "score"
        self.prefills = self._scores and self._task.path == "prefill"
        self._prompt_length_B = np.array([len(request.prompt_token_ids) for request in batch.requests])
        self._length_B = np.array(batch.lengths)
        self._next_B = np.zeros_like(self._length_B)
        longest = int(self._length_B.max())
        self._token_BT = np.zeros((len(batch.requests), longest), dtype=np.int64)
        if self._scores:
            for token_T, request in zip(self._token_BT, batch.requests, strict=True):
                token_T[: len(request.response_token_ids)] = request.response_token_ids
        else:
            ids = [request.sequence_id for request in batch.requests]
            self._uniform_BT = uniforms(self._task.sampling.seed, ids, longest)
        policies = 2 if not self._scores and self._task.sampling.transforms else 1
        self._recorders = [Recorder(self._task.evidence, batch.requests, longest) for _ in range(policies)]

    def sample(self, row_S: np.ndarray, length_S: np.ndarray, logits_SV: Tensor) -> Tensor:
        """The next token of each request [S], whose tokens so far are `length_S`; 0 where none is due."""
        position_S = length_S - self._prompt_length_B[row_S]
        due_S = (row_S >= 0) & (position_S == self._next_B[row_S]) & (position_S < self._length_B[row_S])
        token_S = torch.zeros(len(row_S), dtype=torch.int64, device=logits_SV.device)
        if due_S.all():
            token_S = self._record(row_S, position_S, logits_SV)
        elif due_S.any():
            index_N = torch.from_numpy(np.flatnonzero(due_S)).to(logits_SV.device)
            token_S[index_N] = self._record(row_S[due_S], position_S[due_S], logits_SV[index_N])
        return token_S

    def prefill(
        self,
        row_S: np.ndarray,
        start_S: np.ndarray,
        count_S: np.ndarray,
        compute_logits: Callable[[Tensor], Tensor],
    ) -> None:
        """Record a pass over `count_S` tokens of each request from `start_S` on, laid end to end."""
        offset_S = np.cumsum(count_S) - count_S
        index, rows, positions = [], [], []
        for row, start, count, offset in zip(row_S, start_S, count_S, offset_S, strict=True):
            first = start + 1 - self._prompt_length_B[row]  # the state of a token predicts the next one
            if first > self._next_B[row]:
                raise EngineError("SGLang skipped part of a prompt that is scored; set disable_radix_cache=true")
            position_T = np.arange(max(first, 0), min(first + count, self._length_B[row]))
            index.append(offset + position_T - first)
            rows.append(np.full_like(position_T, row))
            positions.append(position_T)
        index_N, row_N, position_N = np.concatenate(index), np.concatenate(rows), np.concatenate(positions)
        for begin in range(0, len(index_N), PREFILL_CHUNK):
            part = slice(begin, begin + PREFILL_CHUNK)
            self._record(row_N[part], position_N[part], compute_logits(torch.from_numpy(index_N[part])))

    def _record(self, row_N: np.ndarray, position_N: np.ndarray, logits_NV: Tensor) -> Tensor:
        """Record these rows and hand over the sequences that they end; returns their tokens [N]."""
        sampling = self._task.sampling
        if self._scores:
            token_N = torch.from_numpy(self._token_BT[row_N, position_N]).to(logits_NV.device)
            raw = self._task.policy == "raw"
            logprobs = [log_softmax(logits_NV if raw else process_logits(logits_NV, sampling))]
        else:
            sampled_NV = log_softmax(process_logits(logits_NV, sampling))
            token_N = draw(sampled_NV, torch.from_numpy(self._uniform_BT[row_N, position_N]).to(logits_NV.device))
            self._token_BT[row_N, position_N] = token_N.cpu().numpy()
            logprobs = [sampled_NV] + [log_softmax(logits_NV)] * sampling.transforms
        self._next_B[row_N] = position_N + 1
        stops_N = np.zeros(len(row_N), bool) if self._scores else self._stops(self._token_BT[row_N, position_N])
        ends_N = stops_N | (position_N + 1 == self._length_B[row_N])
        self._length_B[row_N[ends_N]] = position_N[ends_N] + 1
        if self._put is not None:
            for recorder, logp_NV in zip(self._recorders, logprobs, strict=True):
                recorder.add(row_N, position_N, logp_NV, token_N)
            for row in row_N[ends_N].tolist():
                self._put(self._finished(row))
        return token_N

    def _stops(self, token_N: np.ndarray) -> np.ndarray:
        return np.isin(token_N, self._batch.stop_ids)

    def _finished(self, row: int) -> SequenceRecord:
        request, length = self._batch.requests[row], int(self._length_B[row])
        response = self._token_BT[row, :length].astype(np.int32)
        observed, *raw = [recorder.finish(row, length) for recorder in self._recorders]
        return SequenceRecord(
            sequence_id=request.sequence_id,
            prompt_id=request.prompt_id,
            prompt_token_ids=request.prompt_token_ids,
            response_token_ids=response,
            finish_reason=request.finish_reason or ("stop" if self._stops(response[-1:])[0] else "length"),
            observed=observed,
            raw=raw[0] if raw else None,
        )
