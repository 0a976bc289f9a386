"""The responses of a log as strips of tokens: how far apart each is, and what a tap on it says."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ...measures.log_results import LoggedSequence, LoggedToken
from ..document import Report
from ..text import count, number, probability

CHOSEN = {"worst": "farthest apart", "random": "at random"}
_LEVELS = (0.01, 0.1, 1.0)
"""|Δ log p| from which on a token is coloured, weak to strong."""


class Cell(NamedTuple):
    """One token. `mark` is what begins there, as text; `numbers` what a tap shows."""

    style: str
    text: str
    numbers: str
    mark: str


class Strip(NamedTuple):
    chosen: str
    title: str
    figures: str
    cells: list[Cell]
    omitted: str


def strips(report: Report) -> list[Strip]:
    """Each response that the report shows, the farthest apart first."""
    return [
        Strip(
            chosen=CHOSEN[each.chosen],
            title=f"response {each.sequence_id}",
            figures=" · ".join(_figures(each)),
            cells=list(_cells(each.tokens)),
            omitted=f"and {count(each.omitted, 'more token')}" if each.omitted else "",
        )
        for each in report.sequences
    ]


def _figures(sequence: LoggedSequence) -> Iterator[str]:
    yield count(len(sequence.tokens) + sequence.omitted, "token")
    yield f"mean (1 − ρ)₊ {number(sequence.mean_tv)}"
    yield f"log ρ(y) {number(sequence.log_ratio)}"
    if sequence.step is not None:
        yield f"step {sequence.step}"
    for value in (sequence.worker, sequence.environment):
        if value:
            yield value
    if sequence.reward is not None:
        yield f"reward {number(sequence.reward)}"


def _cells(tokens: Iterable[LoggedToken]) -> Iterator[Cell]:
    turn = version = None
    for position, token in enumerate(tokens):
        marks = []
        if token.turn is not None and token.turn != turn:
            marks.append(f"turn {token.turn}")
        if token.version is not None and token.version != version:
            marks.append(f"v{token.version}")
        turn, version = token.turn, token.version
        yield Cell(_style(token), token.text or "", _numbers(position, token), " ".join(marks))


def difference(token: LoggedToken) -> float | None:
    """log π − log μ; None where a side is not known."""
    if token.logprob_behavior is None or token.logprob_reference is None:
        return None
    found = token.logprob_reference - token.logprob_behavior
    return None if math.isnan(found) else found


def _style(token: LoggedToken) -> str:
    apart = difference(token)
    level = 0 if apart is None else sum(abs(apart) >= limit for limit in _LEVELS)
    return f"tv{level}" if token.counts else "out"


def _numbers(position: int, token: LoggedToken) -> str:
    sides = [
        "?" if logp is None else probability(logp) for logp in (token.logprob_behavior, token.logprob_reference)
    ]
    parts = [f"{position}", f"id {token.token_id}", f"p {sides[0]} → {sides[1]}"]
    if (apart := difference(token)) is not None:
        parts.append(f"Δ {number(apart)}")
    if not token.counts:
        parts.append("not counted")
    return " · ".join(parts)
