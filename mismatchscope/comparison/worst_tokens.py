"""The states of largest TV, each with the text around it."""

from __future__ import annotations

import numpy as np

from ..reports.document import ContextToken, WorstToken
from ..traces.store import Trace
from .states import StateMeasures

_BEFORE, _AFTER = 12, 4


def worst_tokens(measures: StateMeasures, trace: Trace, count: int = 10) -> list[WorstToken]:
    """The `count` states of largest known TV, largest first; `trace` gives their text where it has one."""
    tv_N = measures.tv_best_N
    order = np.argsort(-tv_N, kind="stable")[:count]
    pieces = _pieces(trace, {int(measures.sequence_id_N[row]) for row in order})
    return [_worst_token(measures, int(row), pieces) for row in order if tv_N[row] > 0]


def _worst_token(measures: StateMeasures, row: int, pieces: dict[int, list[str]]) -> WorstToken:
    sequence_id, position = int(measures.sequence_id_N[row]), int(measures.position_N[row])
    text = pieces.get(sequence_id)
    context: list[ContextToken] = []
    focus = 0
    if text is not None:
        start, stop = max(0, position - _BEFORE), min(len(text), position + _AFTER + 1)
        focus = position - start
        # Rows of one sequence are adjacent and ordered by position, unless some were rejected before this one.
        first = row - position
        context = [
            ContextToken(text=text[at], tv=_tv_at(measures, first + at, sequence_id, at))
            for at in range(start, stop)
        ]
    return WorstToken(
        sequence_id=sequence_id,
        prompt_id=int(measures.prompt_id_N[row]),
        position=position,
        token_id=int(measures.token_id_N[row]),
        tv=float(measures.tv_best_N[row]),
        ratio=float(measures.sampled.ratio[row]),
        logprob_behavior=float(measures.logp_mu_N[row]),
        logprob_reference=float(measures.logp_pi_N[row]),
        context=context,
        focus=focus,
    )


def _tv_at(measures: StateMeasures, row: int, sequence_id: int, position: int) -> float | None:
    if not 0 <= row < measures.sequence_id_N.size:
        return None
    found = (int(measures.sequence_id_N[row]), int(measures.position_N[row]))
    return float(measures.tv_best_N[row]) if found == (sequence_id, position) else None


def _pieces(trace: Trace, wanted: set[int]) -> dict[int, list[str]]:
    import pyarrow as pa
    import pyarrow.compute as pc

    table = trace.read_sequences()
    if "response_pieces" not in table.column_names:
        return {}
    table = table.filter(pc.is_in(table["sequence_id"], pa.array(sorted(wanted), pa.int64())))
    rows = zip(table["sequence_id"].to_pylist(), table["response_pieces"].to_pylist(), strict=True)
    return {sequence_id: pieces for sequence_id, pieces in rows if pieces is not None}
