"""Repeat noise: each side measured against itself, and what of the mismatch lies above it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..errors import NotComparableError
from ..measures.excess import Excess, excess_of
from ..reports.document import Floor, Floors
from ..traces.reader import Trace
from .pair import Pair, measure_pair
from .reduction import mean_of

Composition = Literal["same", "reshuffled"]


@dataclass(frozen=True)
class Repeats:
    """The same tokens through the same side once more, where that was measured."""

    behavior: Trace | None = None
    reference: Trace | None = None


NO_REPEATS = Repeats()


@dataclass(frozen=True, eq=False)
class MeasuredFloors:
    """The floors, the pair that is the larger, the behaviour's, and the mismatch's excess over the larger.

    `deterministic`: both sides repeat to the bit, at every state of the pair.
    """

    floors: Floors
    largest: Pair | None
    behavior: Pair | None
    excess: Excess | None
    deterministic: bool = False


NO_NOISE = MeasuredFloors(Floors(), None, None, None)


def measure_floors(pair: Pair, repeats: Repeats, *, margin: float) -> MeasuredFloors:
    """Measure each repeat against the trace that it repeats; `margin` is that of `excess_of`."""
    noise: dict[str, Pair] = {}
    for side, first, second in (
        ("behavior", pair.mu, repeats.behavior),
        ("reference", pair.pi, repeats.reference),
    ):
        if second is not None:
            noise[side] = measure_pair(first, second, pair.context.of_repeat(first, pair.mu))
    largest = _largest(list(noise.values()))
    excess = None if largest is None else pair_excess(pair, largest, margin=margin)
    floors = {side: _floor(repeat) for side, repeat in noise.items()}
    difference = None if excess is None else excess.difference
    return MeasuredFloors(
        Floors(**floors, excess=difference),
        largest,
        noise.get("behavior"),
        excess,
        deterministic=len(noise) == 2
        and all(repeat.figures.identical and _same_states(pair, repeat) for repeat in noise.values()),
    )


def _same_states(pair: Pair, repeat: Pair) -> bool:
    """Whether a repeat was compared at the states of the pair: as many tokens, of the same sequences, prompts."""
    ours, theirs = pair.statistics.sequences, repeat.statistics.sequences
    counted = [(each.counts.tokens, each.counts.sequences, each.counts.prompts) for each in (pair, repeat)]
    return counted[0] == counted[1] and all(
        np.array_equal(getattr(ours, name), getattr(theirs, name)) for name in ("sequence_id", "length")
    )


def pair_excess(pair: Pair, floor: Pair, *, margin: float) -> Excess | None:
    """Mean TV of a pair less a floor's, paired by prompt.

    None where one of them has no estimate of it, or they are not of the same tokens: other sequences cannot be
    paired, nor can the states of two random subsets.
    """
    ours, noise = (mean_of(each.statistics, each.context, "tv") for each in (pair, floor))
    if ours is None or noise is None:
        return None
    if not _same_states(pair, floor) or ours.n != noise.n:
        return None
    noise = floor.statistics.in_rows_of(pair.statistics, noise)
    try:
        return excess_of(ours, noise, margin=margin, confidence=pair.context.confidence)
    except NotComparableError:  # as many tokens, but of other prompts: each rejected its own rows
        return None


def _floor(repeat: Pair) -> Floor:
    kl = mean_of(repeat.statistics, repeat.context, "kl")
    return Floor(
        observed_max=repeat.alpha.observed_max,
        mean=repeat.alpha.mean,
        kl=None if kl is None else kl.mean,
        identical=repeat.figures.identical,
        composition=_composition(repeat.mu, repeat.pi),
    )


def _composition(first: Trace, second: Trace) -> Composition | None:
    """Whether the second run had its batches in another order; None where the traces do not say."""
    seeds, again = first.manifest.seeds, second.manifest.seeds
    if not seeds or not again or first.manifest.inputs.composition != second.manifest.inputs.composition:
        return None
    return "same" if seeds.get("shuffle") == again.get("shuffle") else "reshuffled"


def _largest(repeats: list[Pair]) -> Pair | None:
    """The repeat of largest mean TV; of those without an estimate, the one of largest lower ends."""

    def size(repeat: Pair) -> tuple[bool, float]:
        values = mean_of(repeat.statistics, repeat.context, "tv")
        return (values is not None, (values or repeat.statistics.tv_lower.sums).mean)

    return max(repeats, key=size, default=None)
