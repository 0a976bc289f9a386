"""Repeat noise: each side measured against itself, and what of the mismatch lies above it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..measures.results import Interval
from ..reports.document import Floor, Floors
from ..traces.reader import Trace
from .pair import Pair, measure_pair

Composition = Literal["same", "reshuffled"]


@dataclass(frozen=True)
class Repeats:
    """The same tokens through the same side once more, where that was measured."""

    behavior: Trace | None = None
    reference: Trace | None = None
    composition: Composition = "reshuffled"


NO_REPEATS = Repeats()


@dataclass(frozen=True, eq=False)
class MeasuredFloors:
    """The floors, and the pair that is the larger of them."""

    floors: Floors
    largest: Pair | None


def measure_floors(pair: Pair, repeats: Repeats) -> MeasuredFloors:
    """Measure each repeat against the trace that it repeats."""
    noise: dict[str, Pair] = {}
    for side, first, second in (
        ("behavior", pair.mu, repeats.behavior),
        ("reference", pair.pi, repeats.reference),
    ):
        if second is not None:
            noise[side] = measure_pair(first, second, pair.context.of_repeat(first))
    excess, largest = _excess(pair, list(noise.values()))
    floors = {side: _floor(repeat, repeats.composition) for side, repeat in noise.items()}
    return MeasuredFloors(Floors(**floors, excess=excess), largest)


def _floor(repeat: Pair, composition: Composition) -> Floor:
    sums, alpha = repeat.statistics.sums, repeat.alpha
    kl = next(sums[name] for name in ("kl", "kl_lower", "k3") if sums[name].n)
    return Floor(
        observed_max=alpha.observed_max,
        mean=alpha.mean,
        kl=kl.mean,
        identical=repeat.figures.identical,
        composition=composition,
    )


def _excess(pair: Pair, repeats: list[Pair]) -> tuple[Interval | None, Pair | None]:
    """Mean TV less the larger floor's, paired by prompt, and the repeat that is that floor.

    Both means use the same per-state figure: the exact TV where every side has it, else (1−ρ)₊, which says
    something of tokens that are μ's own alone. Other sequences cannot be paired.
    """
    if not repeats:
        return None, None
    exact = all(each.statistics.all_exact for each in (pair, *repeats))

    figure = "tv" if exact else "shortfall"
    largest = max(repeats, key=lambda repeat: repeat.statistics.sums[figure].mean)
    ours, noise = pair.statistics.sequences, largest.statistics.sequences
    same = all(np.array_equal(getattr(ours, name), getattr(noise, name)) for name in ("sequence_id", "length"))
    if not same or not (exact or pair.context.on_policy):
        return None, largest
    confidence = pair.context.confidence
    return pair.statistics.paired(largest.statistics, figure, confidence=confidence), largest
