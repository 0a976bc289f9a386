"""Small traces with known content."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mismatchscope.records import Evidence, Observed, Sampling, SequenceRecord
from mismatchscope.traces import Manifest, ModelFacts, Trace, write_records

V = 16


def manifest(**changes: Any) -> Manifest:
    fields: dict[str, Any] = {
        "engine": "transformers",
        "role": "behavior",
        "policy": "processed",
        "path": "rollout",
        "evidence": Evidence("full"),
        "model": ModelFacts(name="tiny", weights_sha256="w", vocabulary_size=V),
        "tokenizer_sha256": "t",
        "sampling": Sampling(),
        "temperature": 1.0,
        "created": "2026-01-01T00:00:00Z",
    }
    return Manifest(**fields | changes)


def observed(
    tokens: np.ndarray,
    rng: np.random.Generator,
    *,
    level: str = "full",
    k: int = 0,
    fraction: float = 1.0,
    vocabulary: int = V,
) -> Observed:
    """What a policy with random logits saw along `tokens`."""
    logits = rng.normal(size=(len(tokens), vocabulary)) * 2
    logp_TV = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    seen = Observed(logprob_T=logp_TV[np.arange(len(tokens)), tokens])
    if level == "topk":
        seen.topk_ids_TK = np.argsort(-logp_TV, axis=1)[:, :k].astype(np.int32)
        seen.topk_logprobs_TK = np.take_along_axis(logp_TV, seen.topk_ids_TK, axis=1)
    if level == "full":
        seen.full_row_R = np.flatnonzero(rng.random(len(tokens)) < fraction)
        seen.full_logprobs_RV = logp_TV[seen.full_row_R].astype(np.float32)
    return seen


def record(sequence_id: int, length: int, *, seed: int = 0, raw: bool = False, **kind: Any) -> SequenceRecord:
    """A sequence whose tokens depend on its id alone; `seed` is the policy, and `kind` goes to `observed`."""
    tokens_rng = np.random.default_rng([7, sequence_id])
    tokens = tokens_rng.integers(0, V, size=length).astype(np.int32)
    prompt = tokens_rng.integers(0, V, size=3).astype(np.int32)
    rng = np.random.default_rng([seed, sequence_id])
    return SequenceRecord(
        sequence_id=sequence_id,
        prompt_id=sequence_id // 2,
        prompt_token_ids=prompt,
        response_token_ids=tokens,
        finish_reason="length",
        observed=observed(tokens, rng, **kind),
        raw=observed(tokens, rng, **kind) if raw else None,
    )


def records(lengths: Iterable[int], **kind: Any) -> list[SequenceRecord]:
    return [record(sequence_id, length, **kind) for sequence_id, length in enumerate(lengths)]


def stored(directory: Path, batch: list[SequenceRecord], **changes: Any) -> Trace:
    """A trace of these records, opened; its evidence is what the first of them has."""
    seen = batch[0].observed
    level = "topk" if seen.topk_ids_TK is not None else "full" if seen.full_row_R is not None else "sampled"
    k = seen.topk_ids_TK.shape[1] if level == "topk" else 0
    write_records(directory / "trace", manifest(**{"evidence": Evidence(level, k)} | changes), batch)
    return Trace.open(directory / "trace")
