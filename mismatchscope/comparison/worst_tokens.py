"""The states of largest TV, each with the text around it."""

from __future__ import annotations

from ..measures.selected_states import AFTER, BEFORE, State
from ..reports.document import ContextToken, WorstToken
from ..traces.reader import Trace
from .pair import Pair


def worst_tokens_of(pair: Pair) -> list[WorstToken]:
    """The states of largest known TV, largest first; the behaviour trace gives their text where it has one."""
    states = pair.statistics.largest.states()
    pieces = _pieces(pair.mu, {state.sequence_id for state in states})
    return [_worst_token(state, pieces.get(state.sequence_id)) for state in states]


def _worst_token(state: State, pieces: list[str] | None) -> WorstToken:
    context: list[ContextToken] = []
    start = max(0, state.position - BEFORE)
    if pieces is not None:
        stop = min(len(pieces), state.position + AFTER + 1)
        context = [ContextToken(text=pieces[at], tv=state.tv_around.get(at)) for at in range(start, stop)]
    return WorstToken(
        sequence_id=state.sequence_id,
        prompt_id=state.prompt_id,
        position=state.position,
        token_id=state.token_id,
        tv=state.tv,
        ratio=state.ratio,
        logprob_behavior=state.logp_mu,
        logprob_reference=state.logp_pi,
        context=context,
        focus=state.position - start if pieces is not None else 0,
    )


def _pieces(trace: Trace, wanted: set[int]) -> dict[int, list[str]]:
    """The decoded tokens of some responses, as far as the trace has them."""
    table = trace.find_sequences(wanted, ["response_pieces"])
    if table is None:
        return {}
    rows = zip(table["sequence_id"].to_numpy().tolist(), table["response_pieces"].to_pylist(), strict=True)
    return {sequence_id: pieces for sequence_id, pieces in rows if pieces is not None}
