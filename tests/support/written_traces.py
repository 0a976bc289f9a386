"""Traces whose log-probs a test writes down itself, so that every figure of a pair is known.

Shapes: S sequences, T tokens of one, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import builders
import numpy as np

from mismatchscope.comparison.context import Context
from mismatchscope.comparison.pair import Pair, measure_pair
from mismatchscope.records import Evidence, Observed, SequenceRecord
from mismatchscope.traces import Trace, write_records


def sampled_trace(
    directory: Path,
    logp_ST: Sequence[np.ndarray],
    *,
    ids: Sequence[int] | None = None,
    per_prompt: int = 1,
    pieces: dict[int, list[str]] | None = None,
    prompts: Sequence[int] | None = None,
    mask_ST: Sequence[np.ndarray] | None = None,
    **manifest: Any,
) -> Trace:
    """A trace of the log-probs of the drawn tokens alone; token t of sequence s has the id (s + t) mod 16.

    `prompts` is the second prompt token of each sequence, by default its prompt id; `mask_ST` the loss mask.
    """
    records = []
    for sequence_id, logp_T in zip(ids if ids is not None else range(len(logp_ST)), logp_ST, strict=True):
        records.append(
            _record(
                sequence_id,
                sequence_id // per_prompt,
                (sequence_id + np.arange(len(logp_T))) % builders.V,
                Observed(np.asarray(logp_T, dtype=np.float64)),
                None if pieces is None else pieces.get(sequence_id),
                None if prompts is None else prompts[len(records)],
            )
        )
        records[-1].mask_T = None if mask_ST is None else np.asarray(mask_ST[len(records) - 1], dtype=bool)
    return _stored(directory, records, Evidence("sampled"), manifest)


def full_trace(directory: Path, p_STV: Sequence[np.ndarray], **manifest: Any) -> Trace:
    """A trace of whole distributions, one prompt a sequence; the drawn token is 0 everywhere."""
    records = []
    for sequence_id, p_TV in enumerate(p_STV):
        with np.errstate(divide="ignore"):
            logp_TV = np.log(np.asarray(p_TV, dtype=np.float64))
        seen = Observed(logp_TV[:, 0], full_row_R=np.arange(len(p_TV)), full_logprobs_RV=np.float32(logp_TV))
        records.append(_record(sequence_id, sequence_id, np.zeros(len(p_TV)), seen, None))
    return _stored(directory, records, Evidence("full"), manifest)


def pair_of(mu: Trace, pi: Trace, **context: Any) -> Pair:
    return measure_pair(mu, pi, Context(**context))


def sampled_pair(
    directory: Path, logp_mu_ST: Sequence[np.ndarray], logp_pi_ST: Sequence[np.ndarray], **context: Any
) -> Pair:
    mu = sampled_trace(directory / "mu", logp_mu_ST)
    return pair_of(mu, sampled_trace(directory / "pi", logp_pi_ST, role="reference", path="prefill"), **context)


def pair_with_ratios(directory: Path, ratio_ST: Sequence[np.ndarray], **context: Any) -> Pair:
    """A pair with these token ratios. μ draws rare tokens, so that π may give them more."""
    logp_mu_ST = [np.full(len(ratio_T), -9.0) for ratio_T in ratio_ST]
    logp_pi_ST = [-9.0 + np.log(np.asarray(ratio_T)) for ratio_T in ratio_ST]
    return sampled_pair(directory, logp_mu_ST, logp_pi_ST, **context)


def _record(
    sequence_id: int,
    prompt_id: int,
    tokens: np.ndarray,
    seen: Observed,
    pieces: list[str] | None,
    prompt: int | None = None,
) -> SequenceRecord:
    return SequenceRecord(
        sequence_id=sequence_id,
        prompt_id=prompt_id,
        prompt_token_ids=np.array([1, prompt_id if prompt is None else prompt], dtype=np.int32),
        response_token_ids=tokens.astype(np.int32),
        finish_reason="length",
        observed=seen,
        response_pieces=pieces,
    )


def _stored(directory: Path, records: list[SequenceRecord], evidence: Evidence, manifest: dict[str, Any]) -> Trace:
    write_records(directory, builders.manifest(**{"evidence": evidence} | manifest), records)
    return Trace.open(directory)
