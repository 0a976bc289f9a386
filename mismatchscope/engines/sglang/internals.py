"""What is inside a model as SGLang runs it, in its scheduler's process: one sequence at a time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..common.internals import Recorder
from ..common.stage_files import write_internals
from ..common.stages import LOGITS, asked_for
from .capture import PREFILL_CHUNK
from .exchange import Batch


class Inside:
    """Stands where `Capture` does for a batch that is scored; nothing is drawn for it.

    A long prompt comes in several passes. After the last one the sequence's file is written, by the rank that
    `writes`.
    """

    prefills = True

    def __init__(self, batch: Batch, *, writes: bool) -> None:
        [request] = batch.requests
        assert request.response_token_ids is not None, "what is looked at has a response"
        self._task, self._writes = batch.task, writes
        self._sequence_id = request.sequence_id
        self._length = len(request.prompt_token_ids) + len(request.response_token_ids)
        self._read = 0
        self._recorder: Recorder | None = None
        self._logits: list[Tensor] = []

    def listening(self, network: torch.nn.Module) -> AbstractContextManager[object]:
        """Around a pass: what the stages give is kept."""
        if self._recorder is None:
            self._recorder = Recorder(network, "sglang", self._task.stages)
        return self._recorder

    def sample(self, row_S: np.ndarray, length_S: np.ndarray, logits_SV: Tensor) -> Tensor:
        return torch.zeros(len(row_S), dtype=torch.long, device=logits_SV.device)

    def prefill(
        self,
        row_S: np.ndarray,
        start_S: np.ndarray,
        count_S: np.ndarray,
        compute_logits: Callable[[Tensor], Tensor],
    ) -> None:
        """After the layers of a pass over `count_S` tokens."""
        if asked_for(LOGITS, self._task.stages):
            chunks = torch.arange(int(count_S.sum())).split(PREFILL_CHUNK)
            self._logits += [compute_logits(index_N).to("cpu", copy=True) for index_N in chunks]
        self._read += int(count_S.sum())
        if self._read == self._length and self._writes:
            self._write()

    def _write(self) -> None:
        assert self._recorder is not None, "a pass is listened to"
        stages = self._recorder.stages(self._length)
        if self._logits:
            stages[LOGITS] = torch.cat(self._logits)
        write_internals(Path(self._task.parts), self._sequence_id, stages, self._recorder.unmatched)
