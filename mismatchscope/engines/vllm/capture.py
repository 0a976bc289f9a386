"""What is recorded of a batch that vLLM computes: which rows of a step predict a response token, reduced to what.

Rows are reduced on their device to the evidence that a task asks for, at a small part of the cost of the step. How
they are got hold of is in `listener`.

Shapes: S requests of a step, N rows recorded, B requests of a batch, T response tokens, V vocabulary. A request's
`row` is its number in the batch, and the id that vLLM knows it by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...errors import EngineError
from ...records import Observed, Sampling, Task
from ..common.capture import TaskRecorder
from ..common.sampling import process_logits
from ..common.tokenized import TokenizedRequest
from .normaliser import Normaliser


@dataclass(frozen=True)
class Step:
    """What a model runner computes at once: of each request `count` tokens from `start` on, laid end to end."""

    row_S: np.ndarray
    start_S: np.ndarray
    count_S: np.ndarray
    offset_S: np.ndarray

    @classmethod
    def of(cls, request_ids: Sequence[str], start_S: np.ndarray, query_start: np.ndarray) -> Step:
        """`query_start` has the offset of every request and the end of the last one."""
        size = len(request_ids)
        # vLLM appends a random part to the ids that it is given.
        row_S = np.array([int(request_id.partition("-")[0]) for request_id in request_ids])
        return cls(row_S, start_S[:size].copy(), np.diff(query_start[: size + 1]), query_start[:size].copy())


@dataclass(frozen=True)
class Rows:
    """Which rows of a tensor are recorded, in rising order, and the response position that each belongs to."""

    index_N: np.ndarray
    row_N: np.ndarray
    position_N: np.ndarray

    def __len__(self) -> int:
        return len(self.index_N)

    def __getitem__(self, part: slice) -> Rows:
        return Rows(self.index_N[part], self.row_N[part], self.position_N[part])

    def of(self, tensor: Tensor) -> Tensor:
        """These rows of it, without a copy where they are all."""
        if len(self) == len(tensor):
            return tensor
        return tensor[torch.from_numpy(self.index_N).to(tensor.device)]


class Capture:
    """The evidence of one batch. Every response position is recorded once, in rising order.

    vLLM computes rows that predict no response token: of prompts that it has not read to the end, and of tokens
    that it computes again after it had to evict a sequence. What counts is the position that is next.
    """

    def __init__(
        self, task: Task, requests: Sequence[TokenizedRequest], length_B: np.ndarray, *, record: bool
    ) -> None:
        self.prefill = task.kind == "score" and task.path == "prefill"
        self._forced = [request.response_token_ids for request in requests] if task.kind == "score" else None
        self._prompt_length_B = np.array([len(request.prompt_token_ids) for request in requests])
        self._length_B = length_B
        self._next_B = np.zeros_like(length_B)
        self._recorder = (
            TaskRecorder(task, requests, int(length_B.max()), process=sampled_from, normaliser=Normaliser)
            if record
            else None
        )

    def sampled_rows(self, step: Step) -> Rows:
        """The rows of a step's logits from which a response token is about to be drawn."""
        position_S = step.start_S + step.count_S - self._prompt_length_B[step.row_S]
        next_S = np.flatnonzero(position_S == self._next_B[step.row_S])
        return Rows(next_S, step.row_S[next_S], position_S[next_S])

    def prefilled_rows(self, step: Step) -> Rows:
        """The rows of a step's hidden states that predict response tokens: the state of token p predicts p + 1."""
        first_S = step.start_S + 1 - self._prompt_length_B[step.row_S]
        parts = []
        for row, first, count, offset in zip(step.row_S, first_S, step.count_S, step.offset_S, strict=True):
            position_T = np.arange(max(first, self._next_B[row]), min(first + count, self._length_B[row]))
            parts.append((offset + position_T - first, np.full_like(position_T, row), position_T))
        return Rows(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def logprobs(self, logits_NV: Tensor) -> list[Tensor]:
        """The log-probs of every recorded policy, until the next call; the logits may be overwritten before."""
        return [] if self._recorder is None else self._recorder.logprobs(logits_NV)

    def forced_tokens(self, rows: Rows) -> Tensor | None:
        """The tokens that must come out; None where they are vLLM's to draw."""
        if self._forced is None:
            return None
        places = zip(rows.row_N.tolist(), rows.position_N.tolist(), strict=True)
        return torch.tensor([int(self._forced[row][position]) for row, position in places])

    def add(self, rows: Rows, logprobs: list[Tensor], token_N: Tensor) -> None:
        if self._recorder is not None:
            self._recorder.add(rows.row_N, rows.position_N, logprobs, token_N)
        np.maximum.at(self._next_B, rows.row_N, rows.position_N + 1)

    def finish(self, row: int, length: int) -> list[Observed]:
        """What was seen of one sequence, for every recorded policy. `EngineError` when it is not what came out."""
        if self._next_B[row] != length:
            raise EngineError(f"vLLM gave {length} tokens; {self._next_B[row]} were seen inside it")
        return [] if self._recorder is None else self._recorder.finish(row, length)


def sampled_from(logits_NV: Tensor, sampling: Sampling) -> Tensor:
    """The logits that vLLM draws from, cut by its own code: rounding may move a token across the border."""
    if sampling.temperature == 0:
        return process_logits(logits_NV, sampling)
    from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p

    def column(value: float, dtype: torch.dtype) -> Tensor:
        return torch.full((len(logits_NV),), value, dtype=dtype, device=logits_NV.device)

    logits_NV = logits_NV.float() / column(sampling.temperature, torch.float32)[:, None]
    k_N = column(sampling.top_k, torch.int32) if 0 < sampling.top_k < logits_NV.shape[1] else None
    p_N = column(sampling.top_p, torch.float32) if sampling.top_p < 1 else None
    return apply_top_k_top_p(logits_NV, k_N, p_N)
