"""The states of largest TV, each with the token that moved most there and the text around it.

Shapes: M ids that both sides show at one state, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..measures.selected_states import AFTER, BEFORE, State
from ..reports.worst_fields import ContextToken, MovedToken, WorstToken
from ..traces.lookup import Place, find_tokens
from ..traces.reader import Trace
from .pair import Pair


def worst_tokens_of(pair: Pair) -> list[WorstToken]:
    """The states of largest known TV, largest first; the behaviour trace gives their text where it has one."""
    states = pair.statistics.largest.states()
    if not states:
        return []
    texts = _Texts(pair.mu, {state.sequence_id for state in states})
    moved = _moved_most(pair, states)
    return [_worst_token(state, texts, moved[state.sequence_id, state.position]) for state in states]


def _worst_token(state: State, texts: _Texts, moved: tuple[int, float, float]) -> WorstToken:
    pieces = texts.pieces.get(state.sequence_id)
    context: list[ContextToken] = []
    start = max(0, state.position - BEFORE)
    if pieces is not None:
        stop = min(len(pieces), state.position + AFTER + 1)
        context = [ContextToken(text=pieces[at], tv=state.tv_around.get(at)) for at in range(start, stop)]
    token_id, logp_mu, logp_pi = moved
    return WorstToken(
        sequence_id=state.sequence_id,
        prompt_id=state.prompt_id,
        position=state.position,
        token_id=state.token_id,
        tv=state.tv,
        ratio=state.ratio,
        logprob_behavior=state.logp_mu,
        logprob_reference=state.logp_pi,
        moved=MovedToken(
            token_id=token_id,
            text=texts.of_token.get(token_id),
            logprob_behavior=logp_mu,
            logprob_reference=logp_pi,
        ),
        context=context,
        focus=state.position - start if pieces is not None else 0,
    )


def _moved_most(pair: Pair, states: list[State]) -> dict[Place, tuple[int, float, float]]:
    """Of each state the id whose probability differs most, as far as both sides show it; its log μ and log π."""
    places = [(state.sequence_id, state.position) for state in states]
    mu, pi = _Distributions(pair.mu, places), _Distributions(pair.pi, places)
    moved = {}
    for state, place in zip(states, places, strict=True):
        ids_M, logp_mu_M, logp_pi_M = _shared(mu.of(place), pi.of(place))
        if pair.context.policy == "support":
            logp_pi_M = np.where(np.isneginf(logp_mu_M), -np.inf, logp_pi_M)
            logp_pi_M = logp_pi_M - np.logaddexp.reduce(logp_pi_M) if len(ids_M) else logp_pi_M
        change_M = np.abs(np.exp(logp_mu_M) - np.exp(logp_pi_M))
        moved[place] = (state.token_id, state.logp_mu, state.logp_pi)
        if len(ids_M) and change_M.max() > abs(np.exp(state.logp_mu) - np.exp(state.logp_pi)):
            at = int(change_M.argmax())
            moved[place] = (int(ids_M[at]), float(logp_mu_M[at]), float(logp_pi_M[at]))
    return moved


def _shared(
    mu: tuple[np.ndarray, np.ndarray], pi: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The ids that both sides show, their log μ and their log π, [M]."""
    ids_M, at_mu_M, at_pi_M = np.intersect1d(mu[0], pi[0], assume_unique=True, return_indices=True)
    return ids_M, mu[1][at_mu_M], pi[1][at_pi_M]


class _Distributions:
    """What a trace shows of the distributions at a few places: all of them, the top-k, or nothing."""

    def __init__(self, trace: Trace, places: list[Place]) -> None:
        lists = ["topk_ids", "topk_logprobs"]
        self._trace, self._listed = trace, set(lists) <= set(trace.token_columns)
        self._full_rows = trace.full_rows()
        wanted = lists if self._listed else []
        self._found: dict[Place, dict[str, Any]] = {}
        if self._listed or len(self._full_rows):
            self._found = find_tokens(trace, places, wanted)

    def of(self, place: Place) -> tuple[np.ndarray, np.ndarray]:
        """(distinct ids, their log-probs); empty where nothing but the sampled token was recorded."""
        entry = self._found.get(place)
        if entry is None:
            return np.zeros(0, dtype=np.int64), np.zeros(0)
        at = int(np.searchsorted(self._full_rows, entry["row"]))
        if at < len(self._full_rows) and self._full_rows[at] == entry["row"]:
            logp_V = self._trace.full_logprobs(at, at + 1)[0].astype(np.float64)
            return np.arange(len(logp_V)), logp_V
        if not self._listed:
            return np.zeros(0, dtype=np.int64), np.zeros(0)
        return np.array(entry["topk_ids"], dtype=np.int64), np.array(entry["topk_logprobs"], dtype=np.float64)


class _Texts:
    """The decoded tokens of some responses, as far as the trace has them; and by id how a token reads there."""

    def __init__(self, trace: Trace, sequence_ids: set[int]) -> None:
        self.pieces: dict[int, list[str]] = {}
        self.of_token: dict[int, str] = {}
        table = trace.find_sequences(sequence_ids, ["response_pieces", "response_token_ids"])
        for row in [] if table is None else table.to_pylist():
            if row["response_pieces"] is not None:
                self.pieces[row["sequence_id"]] = row["response_pieces"]
                self.of_token |= dict(zip(row["response_token_ids"], row["response_pieces"], strict=True))
