"""Does a recorded weight follow a ratio, up to a cap, a floor and a band? Counts and extremes that say so.

Nothing is known of the thresholds beforehand: a cap is the one value that the weights have where they leave the
ratio, a band lies between the ratios that were kept and those that got weight 0. All of it merges.

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
            and self.dropped_below <= self.kept_low
            and self.dropped_above >= self.kept_high
        )

    def allows(self, low: float, high: float) -> bool:
        """Whether the band [low, high] of the ratio does so; a side on which nothing was dropped allows any
        threshold beyond what was kept."""
        slack = math.log1p(TOLERANCE)
        return (
            self.dropped_below - slack <= math.log(low) <= self.kept_low + slack
            and self.kept_high - slack <= math.log(high) <= self.dropped_above + slack
        )


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
    values: set[float] = field(default_factory=set)
    """Of weights that are neither the ratio nor 0, to three digits; empty once there are many."""
    many: bool = False
    other_above: int = 0
    """Of them, those with a ratio above 1."""
    edges: Edges = field(default_factory=Edges)

    def add(self, weight_N: Array, log_ratio_N: Array) -> None:
        known_N = np.isfinite(weight_N) & ~np.isnan(log_ratio_N)
        weight_N, log_ratio_N = weight_N[known_N], log_ratio_N[known_N]
        with np.errstate(over="ignore"):
            ratio_N = np.exp(log_ratio_N)
        zero_N = weight_N == 0
        equal_N = ~zero_N & (np.abs(weight_N - ratio_N) <= TOLERANCE * ratio_N)
        other_N = ~zero_N & ~equal_N
        informative_N = np.abs(log_ratio_N) > INFORMATIVE
        found = Following(
            equal=_count(equal_N),
            zero=_count(zero_N),
            other=_count(other_N),
            informative=_count(informative_N),
            informative_equal=_count(equal_N & informative_N),
            informative_zero=_count(zero_N & informative_N),
            informative_other=_count(other_N & informative_N),
            other_above=_count(other_N & (log_ratio_N > 0)),
        )
        rounded = np.unique([float(f"{value:.3g}") for value in np.unique(weight_N[other_N])[: 50 * _MANY]])
        found.values, found.many = set(rounded.tolist()), len(rounded) > _MANY
        found.edges.add(log_ratio_N[zero_N | equal_N], equal_N[zero_N | equal_N])
        self.merge(found)

    def merge(self, other: Following) -> None:
        for name in ("equal", "zero", "other", "informative", "other_above"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("informative_equal", "informative_zero", "informative_other"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.values |= other.values
        self.many = self.many or other.many or len(self.values) > _MANY
        if self.many:
            self.values = set()
        self.edges.merge(other.edges)

    @property
    def clamps(self) -> tuple[float, ...] | None:
        """The values at which weights stop to follow, a floor, a cap or both; None where there are more."""
        return tuple(sorted(self.values)) if not self.many and len(self.values) <= 2 else None

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


def _count(chosen_N: Array) -> int:
    return int(np.count_nonzero(chosen_N))
