"""The sequences of a trace as they were before they were packed, one at a time.

Shapes: S sequences, N rows of tokens.parquet, T response tokens of one sequence, K top-k.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import TYPE_CHECKING

import numpy as np

from ..errors import TraceError
from ..records import Observed, SequenceRecord
from .columns import flat, pad
from .schema import SEQUENCES, TOKENS

if TYPE_CHECKING:
    from .reader import Trace


def records_of(trace: Trace, *, logprobs: bool, topk: bool) -> Iterator[SequenceRecord]:
    """Its sequences in order; of what was seen of their tokens only what is asked for, as far as it is there."""
    names = ("sequence_id", "prompt_id", "prompt_token_ids", "response_token_ids", "finish_reason")
    sequences = trace.read_sequences(list(names))
    _, length_S = flat(sequences["response_token_ids"].combine_chunks())
    logprob: Iterable[np.ndarray] = _logprob_by_sequence(trace, length_S) if logprobs else repeat(np.empty(0))
    listed = topk and "topk_ids" in trace.token_columns
    observed = _topk_by_sequence(trace, length_S) if listed else repeat((None, None))
    for row, logprob_T, (ids_TK, logprobs_TK) in zip(range(len(length_S)), logprob, observed, strict=False):
        sequence_id, prompt_id, prompt, response, reason = (sequences[name][row] for name in names)
        yield SequenceRecord(
            sequence_id=sequence_id.as_py(),
            prompt_id=prompt_id.as_py(),
            prompt_token_ids=prompt.values.to_numpy(),
            response_token_ids=response.values.to_numpy(),
            finish_reason=reason.as_py(),
            observed=Observed(logprob_T, ids_TK, logprobs_TK),
        )


def _logprob_by_sequence(trace: Trace, length_S: np.ndarray) -> list[np.ndarray]:
    logprob_N = np.concatenate([np.empty(0), *(batch["logprob"] for batch in trace.iter_tokens(["logprob"]))])
    return np.split(logprob_N, np.cumsum(length_S)[:-1])


def _topk_by_sequence(trace: Trace, length_S: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Per sequence the top-k ids [T, K] (padded with -1) and their log-probs [T, K] (padded with NaN)."""
    import pyarrow as pa

    batches = trace.iter_tokens(["topk_ids", "topk_logprobs"])
    lists = (flat(batch.column(0)) for batch in trace.iter_tokens(["topk_ids"]))
    width = max((int(length_N.max(initial=0)) for _, length_N in lists), default=0)  # one K for all requests
    table = trace.token_schema(["topk_ids", "topk_logprobs"]).empty_table()
    for length in length_S.tolist():
        while table.num_rows < length:
            batch = next(batches, None)
            if batch is None:
                raise TraceError(f"{trace.path / TOKENS} ends before the responses of {SEQUENCES} do.")
            table = pa.concat_tables([table, pa.Table.from_batches([batch])])
        rows = table.slice(0, length).combine_chunks()
        table = table.slice(length)
        id_F, k_T = flat(rows["topk_ids"].combine_chunks())
        logp_F, _ = flat(rows["topk_logprobs"].combine_chunks())
        yield pad(id_F, k_T, fill=-1, width=width), pad(logp_F, k_T, fill=np.nan, width=width)
