"""Engines behind the servers of `fake_server`: what they are asked for, and what they must then have seen.

Shapes: T response tokens, K observed ids, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fake_server import POLICY, distributions

from mismatchscope.engines.runtime.job import Job
from mismatchscope.engines.runtime.launcher import job_for
from mismatchscope.engines.server.engine import ServerEngine
from mismatchscope.engines.spec import parse_spec
from mismatchscope.records import Evidence, Request, Sampling, SequenceRecord, Task, write_requests

V = POLICY.vocabulary
KINDS = ("vllm", "sglang", "openai")
KEY = "sk-never-to-be-shown"
SAMPLED, TOPK, FULL = Evidence("sampled"), Evidence("topk", k=4), Evidence("full")
UNCHANGED = Sampling(max_new_tokens=6, seed=5)
WARM = Sampling(max_new_tokens=6, temperature=0.7, seed=5)
TRUNCATED = Sampling(max_new_tokens=6, temperature=0.7, top_k=7, top_p=0.9, seed=5)
GREEDY = Sampling(max_new_tokens=6, temperature=0.0)
REQUESTS = [Request(i, i, prompt_token_ids=np.array([3 + i, 9, 20], dtype=np.int32)) for i in range(5)]

RETRYING = {"retries": "2", "timeout": "5"}
"""Options of an engine that tries again."""

Connect = Callable[..., ServerEngine]


def rollout(engine: ServerEngine, evidence: Evidence, sampling: Sampling, **task: Any) -> list[SequenceRecord]:
    """All `REQUESTS`, in their order."""
    records = engine.rollout(REQUESTS, Task("t", "rollout", "", "", evidence, sampling=sampling, **task))
    return sorted(records, key=lambda record: record.sequence_id)


def short_requests(count: int) -> list[Request]:
    return [Request(i, i, prompt_token_ids=np.array([3, 9], dtype=np.int32)) for i in range(count)]


def sample(engine: ServerEngine, count: int = 1, evidence: Evidence = SAMPLED) -> list[SequenceRecord]:
    """A few tokens behind the same prompt, `count` times."""
    task = Task("t", "rollout", "", "", evidence, sampling=Sampling(max_new_tokens=4))
    return list(engine.rollout(short_requests(count), task))


def job_of(spec: str, model: Path, directory: Path, requests: list[Request], **task: Any) -> Job:
    """A job that rolls requests out in a worker, into `directory / "parts"`."""
    directory.mkdir(exist_ok=True)
    write_requests(directory / "requests", requests)
    task = {"evidence": SAMPLED} | task
    paths = str(directory / "requests"), str(directory / "parts")
    return job_for(parse_spec(spec), str(model), [Task("t", "rollout", *paths, **task)])


def to_score(record: SequenceRecord, ids_TK: np.ndarray | None = None) -> Request:
    """A request to score a sampled sequence, at ids that were observed."""
    kth_T = None if ids_TK is None else np.full(len(ids_TK), -3.0)
    return Request(
        record.sequence_id,
        record.prompt_id,
        record.prompt_token_ids,
        response_token_ids=record.response_token_ids,
        finish_reason=record.finish_reason,
        observed_ids_TK=ids_TK,
        kth_logprob_T=kth_T,
    )


def truth(kind: str, stage: str, record: SequenceRecord, sampling: Sampling) -> np.ndarray:
    """The log-probs [T, V] behind a sequence."""
    tokens = [*record.prompt_token_ids.tolist(), *record.response_token_ids.tolist()]
    return distributions(kind, stage, tokens, len(record.prompt_token_ids), sampling)


def assert_sees(observed: Any, logp_TV: np.ndarray, token_T: np.ndarray, evidence: Evidence) -> None:
    row_T = np.arange(len(token_T))
    np.testing.assert_allclose(observed.logprob_T, logp_TV[row_T, token_T], atol=1e-5)
    if evidence.level == "full":
        assert observed.full_row_R.tolist() == row_T.tolist()
        np.testing.assert_allclose(observed.full_logprobs_RV, logp_TV, atol=1e-5)
    if evidence.level == "topk":
        best_TK = np.argsort(-logp_TV, axis=1, kind="stable")[:, : evidence.k]
        logp_TK = np.take_along_axis(logp_TV, best_TK, axis=1)
        seen_TK = np.isfinite(logp_TK)
        np.testing.assert_array_equal(observed.topk_ids_TK, np.where(seen_TK, best_TK, -1))
        np.testing.assert_allclose(observed.topk_logprobs_TK, np.where(seen_TK, logp_TK, np.nan), atol=1e-5)
