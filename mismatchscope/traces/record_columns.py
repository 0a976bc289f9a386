"""Finished sequences as the columns of the two tables of a trace.

Shapes: T response tokens, K observed ids a token, F exact figures.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from ..measures.full import EXACT
from ..records import SequenceRecord
from .schema import MASK

if TYPE_CHECKING:
    import pyarrow as pa

_COPIED = (
    *("sequence_id", "prompt_id", "finish_reason", "policy_version", "worker", "batch", "group", "max_abs_logit"),
    *("prompt_text", "response_pieces"),
)


def sequence_columns(records: list[SequenceRecord]) -> dict[str, Any]:
    """Those of sequences.parquet."""
    columns: dict[str, Any] = {name: [getattr(record, name) for record in records] for name in _COPIED}
    for name in ("prompt_token_ids", "response_token_ids"):
        columns[name] = _ragged([getattr(record, name) for record in records])
    extras = [record.extra for record in records]
    columns["extra"] = [json.dumps(extra, sort_keys=True) if extra else None for extra in extras]
    return columns


def token_columns(records: list[SequenceRecord]) -> dict[str, Any]:
    """Those of tokens.parquet that these records have; all of them have the same."""
    import pyarrow as pa

    lengths = [len(record.response_token_ids) for record in records]
    seen = [record.observed for record in records]
    columns: dict[str, Any] = {
        "sequence_id": np.repeat([record.sequence_id for record in records], lengths),
        "position": np.concatenate([np.arange(length, dtype=np.int32) for length in lengths]),
        "token_id": np.concatenate([record.response_token_ids for record in records]),
        "logprob": np.concatenate([each.logprob_T for each in seen]),
    }
    ids = [each.topk_ids_TK for each in seen if each.topk_ids_TK is not None]
    logprobs = [each.topk_logprobs_TK for each in seen if each.topk_logprobs_TK is not None]
    if ids:
        listed = [ids_TK >= 0 for ids_TK in ids]  # -1 pads rows to one width in memory, not on disk
        offsets = _offsets(np.concatenate([listed_TK.sum(axis=1) for listed_TK in listed]))
        for column, arrays in (("topk_ids", ids), ("topk_logprobs", logprobs)):
            values = [array_TK[listed_TK] for array_TK, listed_TK in zip(arrays, listed, strict=True)]
            columns[column] = pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(values)))
    if seen[0].tail_overlap_T is not None:
        columns["tail_overlap"] = np.concatenate([each.tail_overlap_T for each in seen])
    if records[0].experts is not None:
        experts = np.concatenate([record.experts for record in records])
        tokens, layers, width = experts.shape
        by_layer = pa.ListArray.from_arrays(_offsets(np.full(tokens * layers, width)), pa.array(experts.ravel()))
        columns["experts"] = pa.ListArray.from_arrays(_offsets(np.full(tokens, layers)), by_layer)
    masks = [record.mask_T for record in records if record.mask_T is not None]
    if masks:
        columns[MASK] = np.concatenate(masks)
    exact = [each.exact_TF for each in seen if each.exact_TF is not None]
    if exact:
        columns |= dict(zip(EXACT, np.concatenate(exact).T, strict=True))
    return columns


def _ragged(values: list[np.ndarray]) -> pa.ListArray:
    import pyarrow as pa

    return pa.ListArray.from_arrays(_offsets([len(v) for v in values]), pa.array(np.concatenate(values)))


def _offsets(lengths: Any) -> pa.Int32Array:
    import pyarrow as pa

    return pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
