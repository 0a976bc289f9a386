"""Candidates for what one side computes otherwise: scored again under each, and one of them closes the gap.

A candidate is a change that a fault would make: another beginning of the prompt, a temperature, a rotary base.
Those that differ in one number are a family, whose number is fitted. A fit of one number to hundreds of tokens
takes next to nothing off a gap of another cause, so that what closes the gap was it, or cannot be told from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .evidence import Array, TokenEvidence
from .peeling import AT_FLOOR
from .sample import Sample
from .statistics.size import gap
from .statistics.stat import Stat

_SHARE_LEFT = 0.1
"""Of the gap: what is surely less is closed, whatever the floor."""
_FALL = 0.75
"""Of the gap, for one that is closed because rounding is left: faint ones have little to fall."""
_AS_GOOD = 1.15
"""Times the gap that the best candidate leaves: another one that leaves no more cannot be told from it."""


class Candidate(NamedTuple):
    """`name` is what a person calls the change, `value` the number that it has where it has one."""

    cause: str
    name: str
    value: float | None = None

    def __str__(self) -> str:
        if self.value is None:
            return self.name
        return f"{self.name} = {self.value:,.0f}" if self.value >= 1000 else f"{self.name} = {self.value:.4g}"


class Tried(NamedTuple):
    """A candidate, and R of the gap that is left under it."""

    candidate: Candidate
    left: Stat


_PROBES, _WORTH = 3, 0.8
"""A fit goes on where so many evaluations have left less than this of what the grid leaves: near the number of a
cause they leave much less."""

_ENOUGH = 0.02
"""A fit ends where so little is left of what the grid leaves."""
_SAME, _CLOSED = 0.02, 1e-3
"""A place nearer than this share of the gap is none to look at; a gap of logarithms that is narrower is closed."""

Score = Callable[[Candidate], Array]
"""Log-probs [N] of the tokens under a candidate; NaN of a token that has none."""


@dataclass(frozen=True)
class Family:
    """Candidates of a cause that differ in one number. `values` rise; between two of them the gap is smooth where
    `smooth` is true, on a logarithmic scale."""

    cause: str
    name: str
    values: Sequence[float]
    smooth: bool = True


def tried(evidence: TokenEvidence, candidate: Candidate, score: Score) -> Tried:
    """What is left where π is scored again under a candidate."""
    return Tried(candidate, gap(Sample.of(evidence).mended(score(candidate))))


def fitted(evidence: TokenEvidence, family: Family, score: Score, *, evaluations: int = 10) -> Tried:
    """The member of a family that leaves least: the best of its values, or where one between them is better, what
    so many more evaluations find."""
    found = [tried(evidence, Candidate(family.cause, family.name, value), score) for value in family.values]
    grid = min(map(_size, found))
    while family.smooth and len(found) < len(family.values) + evaluations:
        searched, least = len(found) - len(family.values), min(map(_size, found))
        if (searched >= _PROBES and least > _WORTH * grid) or least < _ENOUGH * grid:
            break
        points = [(math.log(each.candidate.value or 1), _size(each) ** 2) for each in found]
        logarithm = _between(points, halving=searched % 2 == 1)
        if logarithm is None:
            break
        found.append(tried(evidence, Candidate(family.cause, family.name, math.exp(logarithm)), score))
    return min(found, key=_size)


def _between(points: Sequence[tuple[float, float]], *, halving: bool) -> float | None:
    """Where to look next for the least: at the vertex of the parabola through the least point and its neighbours,
    or where that is hardly another place, and every other time, in the middle of the wider gap beside it. None
    where both gaps are closed.

    R falls to its least as |x| does, so that its square is what a parabola fits; where it does not, halving gets
    there (Brent 1973, chapter 5, has the same two steps).
    """
    points = sorted(points)
    best = min(range(len(points)), key=lambda place: points[place][1])
    near = points[max(best - 1, 0) : best + 2]
    (low, _), (x, _), (high, _) = near[0], points[best], near[-1]
    if high - low < _CLOSED:
        return None
    vertex = _vertex(*near) if len(near) == 3 and not halving else None
    if vertex is not None and min(abs(vertex - other) for other in (low, x, high)) > _SAME * (high - low):
        return vertex
    return (x + high) / 2 if high - x >= x - low else (low + x) / 2


def _vertex(*points: tuple[float, float]) -> float | None:
    """Of the parabola through three points, rising in x; None where they are on a line or not finite."""
    (a, fa), (b, fb), (c, fc) = points
    left, right = (b - a) * (fb - fc), (b - c) * (fb - fa)
    if not math.isfinite(left - right) or left == right:
        return None
    found = b - ((b - a) * left - (b - c) * right) / (2 * (left - right))
    return found if a < found < c else None


def _size(of: Tried) -> float:
    return float("inf") if of.left.value is None else of.left.value


def closing(before: Stat, candidates: Iterable[Tried], *, measured: bool) -> list[Tried]:
    """The candidates that close a gap of R `before`, the best first, and with it those that are as good.

    A gap is closed where surely less than a tenth is left, or where the floor was `measured` and no more than that
    is left. Empty where none closes it.
    """
    ordered = sorted(candidates, key=_size)
    closed = [each for each in ordered if _closes(before, each.left, measured)]
    if not closed:
        return []
    return [each for each in ordered if _size(each) <= _AS_GOOD * _size(closed[0])]


def _closes(before: Stat, after: Stat, measured: bool) -> bool:
    if before.value is None or after.value is None:
        return False
    if after.value == 0 < before.value:  # the same bits
        return True
    if after.high is None:
        return False
    if before.low is not None and after.high < _SHARE_LEFT * before.low:
        return True
    return measured and after.value < AT_FLOOR and after.value < _FALL * before.value
