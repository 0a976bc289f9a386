"""The number of a family of candidates with which least is left of a gap.

z of every token is a smooth function of the number, so that hundreds of tokens say together where to go: a few
scores find it, where a search that sees no more than the size of the gap takes dozens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from .candidates import Candidate, Family, Score, Tried, tried_with
from .evidence import Array, TokenEvidence
from .sample import Sample

_NEAR = 0.05
"""On the logarithm of the number: two members that near have a slope of the place; one from afar leads astray."""
_FARTHEST = math.log(10)
"""Of a step on the logarithm: z is not linear farther away."""
_APART = 1.5
"""In floors: members that differ by less have a slope of rounding."""
_HELPS = 0.98
"""Times the gap: a step that leaves more has not helped."""
_WORTH = 0.95
"""Times the gap without a change: a whole number is looked for where one of the values leaves less."""


def fitted(evidence: TokenEvidence, family: Family, score: Score, *, steps: int = 8) -> Tried:
    """The member that leaves least, by the mean of |z|: a few tokens that are far off lead astray.

    From the best of the family's values, or its own, up to `steps` of Newton's on the logarithm of the number, as
    long as they help. Of whole numbers, the valley between the neighbours of the best value is halved.
    """
    fit = _Fit(evidence, family, score)
    for value in family.values:
        fit.member(value)
    if family.whole:
        if fit.size(fit.best) < _WORTH * fit.size_before:
            _halve(lambda value: fit.member(value).off, family.values)
        return fit.found[fit.best]
    if family.own is not None:
        fit.know(family.own)
    for _ in range(steps):
        fit.look_near(fit.best)
        best = fit.best
        if not fit.step(best, fit.neighbour(best)):
            break
    return fit.found[fit.best]


class _Fit:
    """Members of a family that were scored, by their number."""

    def __init__(self, evidence: TokenEvidence, family: Family, score: Score) -> None:
        self.before, self.family, self.score = Sample.of(evidence), family, score
        self.found: dict[float, Tried] = {}
        self.z_N: dict[float, Array] = {}

    def member(self, value: float) -> Tried:
        if value not in self.found:
            candidate = Candidate(self.family.cause, self.family.name, value)
            self.found[value], self.z_N[value] = tried_with(candidate, self.before, self.score)
        return self.found[value]

    def know(self, own: float) -> None:
        """The value that the score has without a change, which needs no other one."""
        candidate = Candidate(self.family.cause, self.family.name, own)
        as_it_is = self.before.evidence.logp_pi_N
        self.found[own], self.z_N[own] = tried_with(candidate, self.before, lambda _: as_it_is)

    def size(self, value: float) -> float:
        """Mean |z|; infinite where nothing is known of it."""
        return float("inf") if self.found[value].left.value is None else float(np.mean(np.abs(self.z_N[value])))

    @property
    def size_before(self) -> float:
        """The same without a change."""
        return float(np.mean(np.nan_to_num(np.abs(self.before.z_N), nan=0.0)))

    @property
    def best(self) -> float:
        return min(self.found, key=self.size)

    def neighbour(self, best: float) -> float:
        """The member next to the best one whose z differs by more than rounding, or the farthest."""
        others = sorted((v for v in self.found if v != best), key=lambda value: abs(math.log(value / best)))
        return next((v for v in others if self.are_apart(best, v)), others[-1])

    def are_apart(self, one: float, other: float) -> bool:
        """Whether z of two members differs by more than rounding."""
        return bool(np.std(self.z_N[one] - self.z_N[other]) > _APART * self.before.floor.value)

    def look_near(self, best: float) -> None:
        """Score a member that is near enough for a slope of the place, and far enough for one beyond rounding."""
        apart = math.log(self.neighbour(best) / best)
        for share in (1 / 16, 1 / 4) if abs(apart) > _NEAR else ():
            near = best * math.exp(share * apart)
            self.member(near)
            if self.are_apart(best, near):
                break

    def step(self, best: float, other: float) -> bool:
        """To where Σ |z| would be least, were z linear in the logarithm of the number, or half as far; whether that
        helped."""
        z_N = self.z_N[best]
        slope_N = (z_N - self.z_N[other]) / math.log(best / other)
        length = float(np.clip(_least_deviation(slope_N, -z_N), -_FARTHEST, _FARTHEST))
        least = self.size(best)
        for share in (1.0, 0.5):
            following = best * math.exp(share * length)
            if following in self.found:
                return False
            self.member(following)
            if self.size(following) < _HELPS * least:
                return True
        return False


def _least_deviation(slope_N: Array, target_N: Array) -> float:
    """The s with the least Σ |slope · s − target|: the median of target / slope, weighted by |slope|. 0 where every
    slope is 0."""
    kept_N = slope_N != 0
    if not kept_N.any():
        return 0.0
    ratio_M, weight_M = target_N[kept_N] / slope_N[kept_N], np.abs(slope_N[kept_N])
    order = np.argsort(ratio_M)
    below_M = np.cumsum(weight_M[order])
    return float(ratio_M[order][np.searchsorted(below_M, below_M[-1] / 2)])


def _halve(off: Callable[[float], float], values: Sequence[float]) -> None:
    """Towards the whole number at which the fewest tokens are off: next to it a few may be farther off than many
    are at a wrong one."""
    best = min(range(len(values)), key=lambda number: off(values[number]))
    low, high = round(values[max(best - 1, 0)]), round(values[min(best + 1, len(values) - 1)])
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if off(middle) <= off(middle + 1) else (middle + 1, high)
