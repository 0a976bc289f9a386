"""The transformers engine on tiny random models: what its tests ask of it, and how what it recorded is compared.

Shapes: T response tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from tiny_models import VOCABULARY

from mismatchscope.engines.transformers.engine import TransformersEngine
from mismatchscope.records import Evidence, Request, Sampling, SequenceRecord, Task

FULL = Evidence("full")
ROLLOUT = Task("rollout", "rollout", "", "", FULL, sampling=Sampling(max_new_tokens=24, seed=1))
PREFILL = Task("prefill", "score", "", "", FULL, policy="raw")
DECODE = replace(PREFILL, path="decode")
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]

Load = Callable[..., TransformersEngine]


def prompts(count: int, seed: int = 0) -> list[Request]:
    rng = np.random.default_rng(seed)
    return [
        Request(100 + i, i, rng.integers(1, VOCABULARY, rng.integers(1, 9)).astype(np.int32)) for i in range(count)
    ]


Records = dict[int, SequenceRecord]


def roll(engine: TransformersEngine, task: Task = ROLLOUT, requests: Sequence[Request] | None = None) -> Records:
    return by_id(engine.rollout(prompts(6) if requests is None else requests, task))


def by_id(records: object) -> Records:
    return {record.sequence_id: record for record in records}


def to_score(records: Records) -> list[Request]:
    return [
        Request(r.sequence_id, r.prompt_id, r.prompt_token_ids, None, r.response_token_ids, r.finish_reason)
        for r in sorted(records.values(), key=lambda record: record.sequence_id)
    ]


def largest_tv(left: Records, right: Records) -> float:
    assert left.keys() == right.keys()
    pairs = [
        (
            np.exp(left[i].observed.full_logprobs_RV.astype(float)),
            np.exp(right[i].observed.full_logprobs_RV.astype(float)),
        )
        for i in left
    ]
    return max(float(np.abs(p - q).sum(axis=1).max()) / 2 for p, q in pairs)
