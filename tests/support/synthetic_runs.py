"""Rollouts and scores of the synthetic engine, and what is true of them.

Shapes: T response tokens, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mismatchscope.engines.synthetic.engine import SyntheticEngine
from mismatchscope.engines.synthetic.policy import Divergences, States, SyntheticOptions, true_divergences
from mismatchscope.records import Evidence, Request, Sampling, SequenceRecord, Task, request_to_score

PLAIN = Sampling(max_new_tokens=24)
FULL = Evidence("full")


def rollout(
    options: SyntheticOptions, count: int = 12, sampling: Sampling = PLAIN, evidence: Evidence = FULL
) -> list[SequenceRecord]:
    engine = SyntheticEngine("synthetic", options)
    task = Task("rollout", "rollout", "", "", evidence, sampling=sampling)
    requests = [Request(i, i // 2, prompt=f"prompt {i // 2}") for i in range(count)]
    return [record for start in range(0, count, 8) for record in engine.rollout(requests[start : start + 8], task)]


def score(options: SyntheticOptions, records: list[SequenceRecord], **task: Any) -> list[SequenceRecord]:
    asked = Task("score", "score", "", "", **task)
    requests = [request_to_score(record, asked.evidence, asked.policy) for record in records]
    return [*SyntheticEngine("synthetic", options).score(requests, asked)]


def rows(record: SequenceRecord) -> np.ndarray:
    return np.exp(record.observed.full_logprobs_RV.astype(np.float64))


def truth(mu: SyntheticOptions, pi: SyntheticOptions, record: SequenceRecord, **how: Any) -> Divergences:
    return true_divergences(mu, pi, record.prompt_token_ids, record.response_token_ids, **{"sampling": PLAIN} | how)


def along(options: SyntheticOptions, record: SequenceRecord) -> States:
    return States.along(options, record.prompt_token_ids, record.response_token_ids)
