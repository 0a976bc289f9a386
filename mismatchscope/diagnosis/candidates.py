"""Candidates for what one side computes otherwise: scored again under each, and one of them closes the gap.

A candidate is a change that a fault would make: another beginning of the prompt, a temperature, a rotary base.
Those that differ in one number are a family, whose number is fitted. A fit of one number to hundreds of tokens takes
next to nothing off a gap of another cause, so that what closes the gap was it, or cannot be told from it.
"""

from __future__ import annotations

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
        return self.name if self.value is None else f"{self.name} = {self.value:.4g}"


class Tried(NamedTuple):
    """A candidate, and R of the gap that is left under it."""

    candidate: Candidate
    left: Stat


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


def fitted(evidence: TokenEvidence, family: Family, score: Score, *, evaluations: int = 8) -> Tried:
    """The member of a family that leaves least: the best of its values, and between its neighbours as many more
    evaluations as are allowed (Brent 1973, by golden section and parabolas)."""
    grid = [tried(evidence, Candidate(family.cause, family.name, value), score) for value in family.values]
    best = min(range(len(grid)), key=lambda number: _size(grid[number]))
    if not family.smooth:
        return grid[best]
    import math

    from scipy.optimize import minimize_scalar

    found = [grid[best]]

    def left(logarithm: float) -> float:
        member = Candidate(family.cause, family.name, math.exp(logarithm))
        found.append(tried(evidence, member, score))
        return _size(found[-1])

    low, high = family.values[max(best - 1, 0)], family.values[min(best + 1, len(grid) - 1)]
    bounds = (math.log(low), math.log(high))
    minimize_scalar(left, bounds=bounds, method="bounded", options={"maxiter": evaluations, "xatol": 1e-3})
    return min(found, key=_size)


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
    if before.value is None or after.value is None or after.high is None:
        return False
    if before.low is not None and after.high < _SHARE_LEFT * before.low:
        return True
    return measured and after.value < AT_FLOOR and after.value < _FALL * before.value
