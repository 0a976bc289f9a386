"""The evidence of one batch: what every token is drawn or forced from, recorded where SGLang computes it.

SGLang seeds single requests in its deterministic mode alone, which needs a GPU; otherwise its sampler draws other
tokens beside other requests. So tokens are drawn here, from (seed, sequence id, position), by the inverse of the
very distribution that is recorded. Rows are reduced on their device.

Shapes: S requests of a step, N rows recorded, B requests of a batch, T response tokens, V vocabulary. A request's
row is its number in the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ...errors import EngineError
from ...records import SequenceRecord
from ..common.capture import TaskRecorder
from ..common.sampling import draw, process_logits, uniforms
from .exchange import Batch

PREFILL_CHUNK = 256
"""Positions whose logits exist at the same time when prompts are scored."""


class Capture:
    """The evidence of one batch. Every response position is recorded once, in rising order.

    SGLang computes rows that predict no response token, of prompts that it has not read to the end, and, because it
    plans a step ahead, of sequences that have ended; and rows that are recorded already, of sequences that it took
    out for want of memory before it had read their last token. What counts is the position that is next.
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
                response = request.response_token_ids
                assert response is not None, "what is scored has a response"
                token_T[: len(response)] = response
        else:
            ids = [request.sequence_id for request in batch.requests]
            self._uniform_BT = uniforms(self._task.sampling.seed, ids, longest)
        process = partial(process_logits, at_once=True)  # as SGLang's own sampler cuts
        self._recorder = TaskRecorder(self._task, batch.requests, longest, process=process)

    def sample(self, row_S: np.ndarray, length_S: np.ndarray, logits_SV: Tensor) -> Tensor:
        """The next token of each request [S], whose tokens so far are `length_S`; anything where none is due."""
        position_S = length_S - self._prompt_length_B[row_S]
        due_S = (row_S >= 0) & (position_S == self._next_B[row_S]) & (position_S < self._length_B[row_S])
        if due_S.all():
            return self._record(row_S, position_S, logits_SV)
        known_S = self._token_BT[row_S, position_S.clip(0, self._token_BT.shape[1] - 1)]
        token_S = torch.from_numpy(known_S).to(logits_SV.device)
        if due_S.any():
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
            position_T = np.arange(max(first, self._next_B[row]), min(first + count, self._length_B[row]))
            index.append(offset + position_T - first)
            rows.append(np.full_like(position_T, row))
            positions.append(position_T)
        index_N, row_N, position_N = np.concatenate(index), np.concatenate(rows), np.concatenate(positions)
        for begin in range(0, len(index_N), PREFILL_CHUNK):
            part = slice(begin, begin + PREFILL_CHUNK)
            self._record(row_N[part], position_N[part], compute_logits(torch.from_numpy(index_N[part])))

    def _record(self, row_N: np.ndarray, position_N: np.ndarray, logits_NV: Tensor) -> Tensor:
        """Record these rows and hand over the sequences that they end; returns their tokens [N]."""
        logprobs = self._recorder.logprobs(logits_NV)
        if self._scores:
            token_N = torch.from_numpy(self._token_BT[row_N, position_N]).to(logits_NV.device)
        else:
            uniform_N = torch.from_numpy(self._uniform_BT[row_N, position_N]).to(logits_NV.device)
            token_N = draw(logprobs[0], uniform_N)
            self._token_BT[row_N, position_N] = token_N.cpu().numpy()
        self._next_B[row_N] = position_N + 1
        stops_N = np.zeros(len(row_N), bool) if self._scores else self._stops(self._token_BT[row_N, position_N])
        ends_N = stops_N | (position_N + 1 == self._length_B[row_N])
        self._length_B[row_N[ends_N]] = position_N[ends_N] + 1
        if self._put is not None:
            self._recorder.add(row_N, position_N, logprobs, token_N)
            for row in row_N[ends_N].tolist():
                self._put(self._finished(row))
        return token_N

    def _stops(self, token_N: np.ndarray) -> np.ndarray:
        return np.isin(token_N, self._batch.stop_ids)

    def _finished(self, row: int) -> SequenceRecord:
        request, length = self._batch.requests[row], int(self._length_B[row])
        response = self._token_BT[row, :length].astype(np.int32)
        observed, *raw = self._recorder.finish(row, length)
        return SequenceRecord(
            sequence_id=request.sequence_id,
            prompt_id=request.prompt_id,
            prompt_token_ids=request.prompt_token_ids,
            response_token_ids=response,
            finish_reason=request.finish_reason or ("stop" if self._stops(response[-1:])[0] else "length"),
            observed=observed,
            raw=raw[0] if raw else None,
        )
