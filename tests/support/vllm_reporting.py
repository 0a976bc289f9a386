"""The engine `vllm`, which also asks vLLM itself for log-probs: `extra["reported"]` has them by position and id."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mismatchscope.engines.vllm.engine import VllmEngine
from mismatchscope.records import Request, SequenceRecord, Task

REPORTED = 20
"""vLLM's default cap. The drawn token comes on top where it is not one of them."""


class ReportingEngine(VllmEngine):
    def rollout(self, batch: Sequence[Request], task: Task) -> Iterator[SequenceRecord]:
        self._reported: dict[int, list[dict[int, float]]] = {}
        rows = {request.sequence_id: row for row, request in enumerate(batch)}
        for record in super().rollout(batch, task):
            record.extra["reported"] = self._reported[rows[record.sequence_id]]
            yield record

    def _params(self, **params: Any) -> Any:
        return super()._params(**params, logprobs=REPORTED)

    def _run(self, *args: Any) -> Iterator[tuple[int, Any]]:
        for row, output in super()._run(*args):
            self._reported[row] = [
                {token: entry.logprob for token, entry in entries.items()} for entries in output.logprobs
            ]
            yield row, output
