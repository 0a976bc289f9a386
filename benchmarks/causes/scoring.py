"""Points for what was said of a case, by the protocol: right alone 1, in a set of k 1/k, cannot tell 0, wrong −1,
rounding called a fault −2."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from cases import ROUNDING, Key, Truth

Outcome = Literal["right alone", "right set", "cannot tell", "wrong", "called a fault"]
OUTCOMES: tuple[Outcome, ...] = ("right alone", "right set", "cannot tell", "wrong", "called a fault")


@dataclass(frozen=True)
class Said:
    """An answer: sets of causes, one for each fault that was found, or none of them.

    `rounding` is true where the gap is said to be ordinary rounding, `facts` are things that are no fault. With no
    cause, no fact and no rounding, nothing could be told. `confidence` is the least that was stated.
    """

    causes: tuple[tuple[str, ...], ...] = ()
    facts: tuple[str, ...] = ()
    rounding: bool = False
    fault: bool = False
    """Whether it says that there is something other than rounding."""
    detectors: tuple[str, ...] = ()
    confidence: float | None = None


@dataclass(frozen=True)
class Scored:
    key: Key
    truth: Truth
    level: str
    said: Said
    outcome: Outcome
    points: float


def score(key: Key, truth: Truth, level: str, said: Said) -> Scored:
    outcome, points = _judged(truth, said)
    return Scored(key, truth, level, said, outcome, points)


def _judged(truth: Truth, said: Said) -> tuple[Outcome, float]:
    if truth.hidden:
        allowed = set().union(*truth.causes) if truth.causes else set()
        if said.causes and not all(set(named) & allowed for named in said.causes):
            return "called a fault", -2.0
        if said.causes:
            return _share(said.causes)
        if said.fault:
            return "called a fault", -2.0
        if not set(said.facts) <= allowed:
            return "wrong", -1.0
        return ("right alone", 1.0) if said.rounding or said.facts else ("cannot tell", 0.0)
    named = [*said.causes, *((fact,) for fact in said.facts)]
    if any(not any(set(causes) & set(codes) for codes in truth.causes) for causes in said.causes):
        return "wrong", -1.0
    found = [causes for causes in named if any(set(causes) & set(codes) for codes in truth.causes)]
    if not found:
        return ("wrong", -1.0) if said.rounding else ("cannot tell", 0.0)
    covered = [any(set(causes) & set(codes) for causes in found) for codes in truth.causes]
    outcome, points = _share(found)
    share = sum(covered) / len(covered)
    return (outcome, points) if share == 1 else ("right set", points * share)


def _share(named: Sequence[Sequence[str]]) -> tuple[Outcome, float]:
    points = sum(1 / len(causes) for causes in named) / len(named)
    return ("right alone", 1.0) if all(len(causes) == 1 for causes in named) else ("right set", points)


def label(truth: Truth) -> str:
    """The row of a case in the confusion matrix."""
    if truth.hidden:
        return ROUNDING
    return " + ".join(codes[0] for codes in truth.causes)


def answer_label(said: Said) -> str:
    """The column of an answer in the confusion matrix."""
    if said.causes:
        return " + ".join(sorted({"/".join(sorted(causes)) for causes in said.causes}))
    if said.facts:
        return " + ".join(said.facts)
    return ROUNDING if said.rounding else "cannot tell"


def points(scored: Iterable[Scored]) -> float:
    """Mean points of a case."""
    values = [each.points for each in scored]
    return sum(values) / len(values) if values else float("nan")


def severity_band(truth: Truth) -> str:
    if truth.hidden:
        return "hidden, < 1.25"
    if truth.severity < 3:
        return "faint, 1.5 – 3"
    return "clear, 3 – 30" if truth.severity < 30 else "gross, > 30"
