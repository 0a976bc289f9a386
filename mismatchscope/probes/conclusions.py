"""What sentences about several cells are made of. None is said of a cell that could not be measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..reports.pair_fields import SIDES, engine_of
from ..reports.text import count, estimate, number, share

if TYPE_CHECKING:
    from ..reports.pair_fields import PairSummary, ProbeCell, ProbeConclusion

MeasuredCell = tuple["ProbeCell", "PairSummary"]


def measured(cells: Sequence[ProbeCell]) -> list[MeasuredCell]:
    """Those whose setting did what it was asked to, and the pair: one that was ignored says nothing of what it was
    to be."""
    return [(cell, cell.pair) for cell in cells if cell.pair is not None and cell.status == "measured"]


def nothing_tried() -> ProbeConclusion:
    from ..reports.pair_fields import ProbeConclusion

    return ProbeConclusion("nothing_tried", "No setting did what it was asked to.")


def by_computation(cells: Sequence[MeasuredCell]) -> dict[str, list[MeasuredCell]]:
    """Those of each side, engine and path; the side is in the name where both sides compute so."""
    found: dict[tuple[str, str | None], list[MeasuredCell]] = {}
    for cell, pair in cells:
        found.setdefault((computation_of(cell), cell.side), []).append((cell, pair))
    sides = Counter(name for name, _ in found)
    return {
        name if sides[name] == 1 or side is None else f"{name} of the {SIDES[side]}": own
        for (name, side), own in found.items()
    }


def differing(cells: Sequence[MeasuredCell]) -> list[MeasuredCell]:
    return [(cell, pair) for cell, pair in cells if not pair.identical]


def farthest(cells: Sequence[MeasuredCell]) -> MeasuredCell:
    return max(cells, key=lambda entry: size_of(entry[1]))


def size_of(pair: PairSummary) -> tuple[float, float]:
    """Pairs in this order rise by mean TV; those without an estimate of it come first, by their largest TV."""
    mean = pair.alpha.mean.value
    return (-1.0 if mean is None else mean, pair.alpha.observed_max or 0.0)


def gap(pair: PairSummary) -> str:
    """`mean TV 0.0021 [0.0019, 0.0023], at most 0.031, same bits at 93 % of 4,096 tokens`."""
    return f"mean TV {mean_tv(pair)}, max {number(pair.alpha.observed_max)}, {same_bits(pair)}"


def mean_tv(pair: PairSummary) -> str:
    mean = pair.alpha.mean
    return estimate(mean.value, mean.low, mean.high)


def same_bits(pair: PairSummary) -> str:
    """Of the sampled tokens: at how many both log-probs have the same bits."""
    if pair.same_share is None:
        return "same bits at an unknown share of tokens"
    return f"same bits at {share(pair.same_share)} of {count(pair.tokens or 0, 'token')}"


def computation_of(cell: ProbeCell) -> str:
    """`transformers decode`."""
    return f"{engine_of(cell.engine)} {cell.path}"
