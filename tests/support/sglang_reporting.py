"""The engine `sglang`, which also asks SGLang itself for log-probs: `extra["reported"]`, by position and id.

They are those of its prompts, which it gives as the model has them, whatever the temperature.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mismatchscope.engines.sglang.engine import SglangEngine
from mismatchscope.records import Request, SequenceRecord, Task

REPORTED = 20


class ReportingEngine(SglangEngine):
    def rollout(self, batch: Sequence[Request], task: Task) -> Iterator[SequenceRecord]:
        records = list(super().rollout(batch, task))
        answers = self._sglang._engine.generate(
            input_ids=[
                [*record.prompt_token_ids.tolist(), *record.response_token_ids.tolist()] for record in records
            ],
            sampling_params={"max_new_tokens": 0, "temperature": task.sampling.temperature},
            return_logprob=True,
            logprob_start_len=0,
            top_logprobs_num=REPORTED,
        )
        for record, answer in zip(records, answers, strict=True):
            own, top = (answer["meta_info"][f"input_{kind}_logprobs"] for kind in ("token", "top"))
            places = range(len(record.prompt_token_ids), len(own))
            record.extra["reported"] = [
                {str(token): logprob for logprob, token, _ in [own[place], *top[place]]} for place in places
            ]
            yield record
