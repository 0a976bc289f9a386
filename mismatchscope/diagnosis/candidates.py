"""Candidates for what one side computes otherwise: scored again under each, and one of them closes the gap.

A candidate is a change that a fault would make: another beginning of the prompt, a temperature, a rotary base.
Those that differ in one number are a family, whose number is fitted. A fit of one number to hundreds of tokens
takes next to nothing off a gap of another cause, so that what closes the gap was it, or cannot be told from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .answer import BEYOND
from .evidence import Array, TokenEvidence
from .peeling import AT_FLOOR
from .sample import Sample
from .statistics.size import CLEAR, gap
from .statistics.stat import NOTHING, Stat

_SHARE_LEFT = 0.1
"""Of the gap: what is surely less is closed, whatever the floor."""
_FALL, _FALL_TO_PRIOR = 0.75, 1 / 3
"""Of the gap, for one that is closed because rounding is left: faint ones have little to fall. Where the floor was
not measured, more has to fall, since the floor may be lower."""
_AS_GOOD = 1.15
"""Times the gap that the best candidate leaves: another one that leaves no more cannot be told from it."""
_FEW_LOST = 0.03
"""Share of the tokens that rounding may put beyond the edge of a kept set."""


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
    """A candidate, and R of the gap that is left under it; `off` is the share of tokens that are beyond three
    floors."""

    candidate: Candidate
    left: Stat
    off: float = 1.0


Score = Callable[[Candidate], Array]
"""Log-probs [N] of the tokens under a candidate; NaN of a token that has none."""


@dataclass(frozen=True)
class Family:
    """Candidates of a cause that differ in one number, a positive one.

    `values`, two at the least, rise, and the number may be between them or near `own`, which the score has without
    a change; None is not known. It is a whole number where `whole` is true.
    """

    cause: str
    name: str
    values: Sequence[float]
    own: float | None = None
    whole: bool = False


def tried(evidence: TokenEvidence, candidate: Candidate, score: Score) -> Tried:
    """What is left where π is scored again under a candidate.

    Nothing is known of one that makes tokens impossible which were sampled: what is left of the others says little.
    """
    return tried_with(candidate, Sample.of(evidence), score)[0]


def tried_with(candidate: Candidate, before: Sample, score: Score) -> tuple[Tried, Array]:
    """The same, with z of each token [N], 0 of those that have none."""
    after = before.mended(score(candidate))
    z_N = np.nan_to_num(after.z_N, nan=0.0)
    lost = int(np.count_nonzero(before.live_N & ~after.live_N))
    if lost > _FEW_LOST * np.count_nonzero(before.live_N):
        return Tried(candidate, NOTHING), z_N
    off = int(np.count_nonzero(after.gap_N > CLEAR)) / max(1, int(np.count_nonzero(after.scaled_N)))
    return Tried(candidate, gap(after), off), z_N


def _size(of: Tried) -> float:
    return float("inf") if of.left.value is None else of.left.value


def closing(before: Stat, candidates: Iterable[Tried], *, measured: bool) -> list[Tried]:
    """The candidates that close a gap of R `before`, the best first, and with it those that are as good.

    A gap is closed where surely less than a tenth is left, or no more than rounding makes and that is clearly less;
    `measured` says whether the floor was. Empty where none closes it.
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
    at_floor = after.value < BEYOND and after.low is not None and after.low < AT_FLOOR
    return at_floor and after.value < (_FALL if measured else _FALL_TO_PRIOR) * before.value
