"""What a trace on disk holds, against the records that went into it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from mismatchscope.records import SequenceRecord
from mismatchscope.traces import Trace

LENGTHS = [5, 1, 0, 9, 30]


def files(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def assert_holds(trace: Trace, expected: list[SequenceRecord]) -> None:
    """Every number of the records is in the trace, bit for bit."""
    rows = trace.read_sequences().to_pylist()
    assert [row["sequence_id"] for row in rows] == [each.sequence_id for each in expected]
    tokens = (
        pa.Table.from_batches(list(trace.iter_tokens(batch_rows=7)), schema=None).to_pylist() if expected else []
    )
    full_rows = trace.full_rows().tolist()
    at = 0
    for row, each in zip(rows, expected, strict=True):
        assert row["prompt_token_ids"] == each.prompt_token_ids.tolist()
        assert row["response_token_ids"] == each.response_token_ids.tolist()
        assert row["finish_reason"] == each.finish_reason
        for position, token_id in enumerate(each.response_token_ids.tolist()):
            token = tokens[at + position]
            assert (token["sequence_id"], token["position"]) == (each.sequence_id, position)
            assert (token["token_id"], token["logprob"]) == (token_id, each.observed.logprob_T[position])
            if each.observed.topk_ids_TK is not None:
                assert token["topk_ids"] == each.observed.topk_ids_TK[position].tolist()
                assert token["topk_logprobs"] == each.observed.topk_logprobs_TK[position].tolist()
        for row_R, logp_V in zip(
            each.observed.full_row_R if each.observed.full_row_R is not None else [],
            each.observed.full_logprobs_RV if each.observed.full_row_R is not None else [],
            strict=True,
        ):
            stored = full_rows.index(at + row_R)
            np.testing.assert_array_equal(trace.full_logprobs(stored, stored + 1)[0], logp_V)
        at += len(each.response_token_ids)
