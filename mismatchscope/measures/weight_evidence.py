"""Does a recorded weight follow a ratio, up to a cap, a floor and a band? Counts and extremes that say so.

Nothing is known of the thresholds beforehand: a cap is the one value that the weights have below their ratio, a
floor the one above it, a band lies between the ratios that were kept and those that got weight 0. All of it merges.

Shapes: N tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

Array = np.ndarray

TOLERANCE = 5e-3
"""Relative: weights are written in formats as short as bfloat16."""
INFORMATIVE = 0.02
"""A token says which ratio a weight follows where that ratio is so far from 1, in its logarithm."""
_MANY = 32
_SMALLEST = 1e-7
"""A ratio as small is written as 0 in some formats: a weight 0 says nothing there."""
_LEAST_OFFSET = 1e-4
"""By how much weights are off a ratio on average, where nothing but rounding is between them."""


@dataclass
class Edges:
    """Between which ratios a rule stopped to keep: the kept ones' extremes, and the nearest that were dropped."""

    kept_low: float = math.inf
    kept_high: float = -math.inf
    dropped_below: float = -math.inf
    dropped_above: float = math.inf
    below: int = 0
    above: int = 0

    def add(self, log_ratio_N: Array, kept_N: Array) -> None:
        kept, dropped = log_ratio_N[kept_N], log_ratio_N[~kept_N]
        below, above = dropped[dropped < 0], dropped[dropped >= 0]
        self.merge(
            Edges(
                float(kept.min(initial=math.inf)),
                float(kept.max(initial=-math.inf)),
                float(below.max(initial=-math.inf)),
                float(above.min(initial=math.inf)),
                len(below),
                len(above),
            )
        )

    def merge(self, other: Edges) -> None:
        self.kept_low, self.kept_high = min(self.kept_low, other.kept_low), max(self.kept_high, other.kept_high)
        self.dropped_below = max(self.dropped_below, other.dropped_below)
        self.dropped_above = min(self.dropped_above, other.dropped_above)
        self.below += other.below
        self.above += other.above

    @property
    def separates(self) -> bool:
        """Whether some band has every kept ratio within and every dropped one without."""
        return (
            self.below + self.above > 0
            and self.dropped_below < self.kept_low
            and self.dropped_above > self.kept_high
        )

    @property
    def brackets(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Logarithms of the ratios between which the lower threshold lies, and the upper one; infinite where
        nothing was dropped on that side."""
        return (self.dropped_below, self.kept_low), (self.kept_high, self.dropped_above)


class Levels:
    """The distinct values of some weights, to three digits, as long as they are few."""

    def __init__(self) -> None:
        self._values: set[float] = set()
        self._many = False

    def add(self, weight_N: Array) -> None:
        distinct = np.unique(weight_N)[: 50 * _MANY]
        self._take({float(f"{value:.3g}") for value in distinct.tolist()}, False)

    def merge(self, other: Levels) -> None:
        self._take(other._values, other._many)

    def _take(self, values: set[float], many: bool) -> None:
        self._values = self._values | values
        self._many = self._many or many or len(self._values) > _MANY
        if self._many:
            self._values = set()

    @property
    def none(self) -> bool:
        return not self._values and not self._many

    @property
    def only(self) -> float | None:
        """The one value there is."""
        return next(iter(self._values)) if len(self._values) == 1 else None


_COUNTS = ("equal", "zero", "other", "informative", "informative_equal", "informative_zero", "informative_other")


@dataclass
class Following:
    """How far weights follow one ratio."""

    equal: int = 0
    zero: int = 0
    other: int = 0
    informative: int = 0
    informative_equal: int = 0
    informative_zero: int = 0
    informative_other: int = 0
    caps: Levels = field(default_factory=Levels)
    """Of weights below their ratio, and not 0."""
    floors: Levels = field(default_factory=Levels)
    """Of weights above it."""
    edges: Edges = field(default_factory=Edges)
    lowest: float = math.inf
    """Logarithm of the smallest ratio that a weight equals."""
    highest: float = -math.inf
    offset: float = 0.0
    """Σ (weight / ratio − 1) over weights that equal their ratio."""
    offset_square: float = 0.0

    def add(self, weight_N: Array, log_ratio_N: Array) -> None:
        with np.errstate(over="ignore"):
            ratio_N = np.exp(log_ratio_N)
        known_N = np.isfinite(weight_N) & ~np.isnan(ratio_N) & ((weight_N != 0) | (ratio_N > _SMALLEST))
        weight_N, log_ratio_N, ratio_N = weight_N[known_N], log_ratio_N[known_N], ratio_N[known_N]
        zero_N = weight_N == 0
        equal_N = ~zero_N & (np.abs(weight_N - ratio_N) <= TOLERANCE * ratio_N)
        other_N = ~zero_N & ~equal_N
        informative_N = np.abs(log_ratio_N) > INFORMATIVE
        offset_N = weight_N[equal_N] / ratio_N[equal_N] - 1
        found = Following(
            equal=_count(equal_N),
            zero=_count(zero_N),
            other=_count(other_N),
            informative=_count(informative_N),
            informative_equal=_count(equal_N & informative_N),
            informative_zero=_count(zero_N & informative_N),
            informative_other=_count(other_N & informative_N),
            lowest=float(log_ratio_N[equal_N].min(initial=math.inf)),
            highest=float(log_ratio_N[equal_N].max(initial=-math.inf)),
            offset=float(offset_N.sum()),
            offset_square=float(offset_N @ offset_N),
        )
        found.caps.add(weight_N[other_N & (weight_N < ratio_N)])
        found.floors.add(weight_N[other_N & (weight_N > ratio_N)])
        found.edges.add(log_ratio_N, ~zero_N)
        self.merge(found)

    def merge(self, other: Following) -> None:
        for name in (*_COUNTS, "offset", "offset_square"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.lowest, self.highest = min(self.lowest, other.lowest), max(self.highest, other.highest)
        self.caps.merge(other.caps)
        self.floors.merge(other.floors)
        self.edges.merge(other.edges)

    @property
    def clamps(self) -> tuple[float | None, float | None] | None:
        """(Floor, cap) at which weights stop to follow, each None where no weight did; None where other weights
        than those leave the ratio."""
        floor, cap = self.floors.only, self.caps.only
        one_each = (self.floors.none or floor is not None) and (self.caps.none or cap is not None)
        slack = math.log1p(2 * TOLERANCE)
        floor_holds = floor is None or math.log(floor) <= self.lowest + slack
        cap_holds = cap is None or math.log(cap) >= self.highest - slack
        in_order = floor is None or cap is None or floor < cap
        return (floor, cap) if one_each and in_order and floor_holds and cap_holds else None

    @property
    def agreement(self) -> float | None:
        """Share of the informative tokens whose weight is the ratio, a clamp of it, or 0 outside a band."""
        if not self.informative:
            return None
        found = self.informative_equal
        if self.clamps is not None:
            found += self.informative_other
        if not self.zero or self.edges.separates:
            found += self.informative_zero
        return found / self.informative if self.informative_equal else 0.0

    @property
    def factor(self) -> float | None:
        """Mean of weight / ratio where it is not 1 beyond its error; None where it is."""
        if self.equal < 2:
            return None
        mean = self.offset / self.equal
        variance = max(self.offset_square / self.equal - mean**2, 0.0)
        return 1 + mean if abs(mean) > max(_LEAST_OFFSET, 4 * math.sqrt(variance / self.equal)) else None


def _count(chosen_N: Array) -> int:
    return int(np.count_nonzero(chosen_N))
