"""The cells of a probe's table: two settings held together on the same tokens, or why they could not be."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from ..comparison.context import Context
from ..comparison.contrast import contrast
from ..comparison.growth import growth_of
from ..comparison.pair import Pair, measure_pair
from ..errors import NotComparableError
from ..measures.results import Interval
from ..reports.pair_fields import CellDifference, ProbeCell
from .effective import effective_of, what_was_ignored
from .plan import Comparison, Plan
from .traces import ProbeTraces


@dataclass(frozen=True, eq=False)
class MeasuredCell:
    """`pair` is all that the summary in the cell is of; None where there is none."""

    cell: ProbeCell
    pair: Pair | None = None


def measure_cells(plan: Plan, traces: ProbeTraces, context: Context) -> list[MeasuredCell]:
    """Every comparison of the plan, in its order. `context` is that of the policy that drew the tokens."""
    found = {comparison: _measured(plan, comparison, traces, context) for comparison in plan.comparisons}
    return [_with_differences(comparison, found) for comparison in plan.comparisons]


def _measured(plan: Plan, comparison: Comparison, traces: ProbeTraces, context: Context) -> MeasuredCell:
    against, setting = comparison.against, comparison.setting
    cell = ProbeCell(setting.label, against.label, str(setting.spec), setting.path)
    for each in (setting, against):
        if each in traces.errors:
            return _failed(cell, traces.errors[each].message)
    first, second = traces.traces[against], traces.traces[setting]
    manifest = second.manifest
    if (setting.side, against.side) == ("behavior", "reference"):
        first, second = second, first  # the sampler is μ, as in an audit
    ignored = what_was_ignored(manifest, plan.keys)
    cell = replace(
        cell,
        effective=effective_of(manifest, plan.keys),
        status="measured" if ignored is None else "ignored",
        reason=ignored,
    )
    try:
        pair = measure_pair(first, second, context.of_repeat(first, traces.source))
    except NotComparableError as error:
        return _failed(cell, error.message)
    growth = growth_of(pair) if comparison.along else None
    return MeasuredCell(replace(cell, pair=pair.summary, growth=growth), pair)


def _with_differences(comparison: Comparison, found: Mapping[Comparison, MeasuredCell]) -> MeasuredCell:
    measured = found[comparison]
    differences = tuple(_difference(measured, found[other]) for other in comparison.less)
    return replace(measured, cell=replace(measured.cell, differences=differences))


def _difference(measured: MeasuredCell, other: MeasuredCell) -> CellDifference:
    """Without a value where one of the two has no mean TV, or they are not of the same tokens."""
    difference = Interval(None)
    if measured.pair is not None and other.pair is not None:
        confidence = measured.pair.context.confidence
        with suppress(NotComparableError):
            difference = contrast([measured.pair, other.pair], [1, -1], confidence=confidence)
    return CellDifference(f"{other.cell.setting} against {other.cell.against}", difference)


def _failed(cell: ProbeCell, reason: str) -> MeasuredCell:
    return MeasuredCell(replace(cell, status="failed", reason=reason))
