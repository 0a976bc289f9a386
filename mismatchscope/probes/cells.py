"""The cells of a probe's table: two settings held together on the same tokens, or why they could not be."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from ..comparison.context import Context
from ..comparison.contrast import contrast
from ..comparison.growth import growth_of
from ..comparison.pair import Pair, measure_pair
from ..comparison.ratio import ratio_of
from ..comparison.rounding import rounding_floor
from ..comparison.rounding_size import rounding_size
from ..comparison.third_party import related_errors
from ..errors import NotComparableError
from ..measures.results import Interval, ThirdParty
from ..reports.pair_fields import SIDES, CellDifference, CellRatio, ProbeCell, engine_of
from ..traces.reader import Trace
from .conclusions import size_of
from .effective import effective_of, what_was_ignored
from .plan import Comparison, Path, Plan, Setting, Side
from .traces import ProbeTraces


@dataclass(frozen=True, eq=False)
class MeasuredCell:
    """`pair` is all that the summary in the cell is of; None where there is none."""

    cell: ProbeCell
    pair: Pair | None = None

    @property
    def trusted(self) -> Pair | None:
        """The pair of a setting that did what it was asked to."""
        return self.pair if self.cell.status == "measured" else None


def measure_cells(plan: Plan, traces: ProbeTraces, context: Context) -> list[MeasuredCell]:
    """Every comparison of the plan, in its order or by mean TV, those without a pair last. `context` is that of the
    policy that drew the tokens."""
    found = {comparison: _measured(plan, comparison, traces, context) for comparison in plan.comparisons}
    cells = [_with_others(comparison, found) for comparison in plan.comparisons]
    return sorted(cells, key=_rank) if plan.ranked else cells


def _rank(measured: MeasuredCell) -> tuple[bool, float, float]:
    return (True, 0.0, 0.0) if measured.cell.pair is None else (False, *size_of(measured.cell.pair))


def _measured(plan: Plan, comparison: Comparison, traces: ProbeTraces, context: Context) -> MeasuredCell:
    against, setting, third = comparison.against, comparison.setting, comparison.third
    cell = ProbeCell(
        setting.label,
        _label_beside(setting, against, plan),
        str(setting.spec),
        setting.path,
        third=None if third is None else _label_beside(setting, third, plan),
        side=setting.side,
        conditioned_on=None if setting.replay is None else str(setting.replay),
    )
    for each in (setting, against):
        if each in traces.left_out:
            return MeasuredCell(replace(cell, status="left_out", reason=traces.left_out[each]))
    side_by_side = comparison in traces.side_by_side
    if setting in traces.errors and not side_by_side:
        return _failed(cell, traces.errors[setting].message)
    if against in traces.errors and not side_by_side:
        return _failed(cell, f"{cell.against}: {traces.errors[against].message}")
    mu, pi = traces.policies(comparison)
    manifest, base = (trace.manifest for trace in ((pi, mu) if comparison.policies[1] is setting else (mu, pi)))
    ignored = what_was_ignored(manifest, plan.keys)
    if ignored is None and (of_base := what_was_ignored(base, plan.keys)) is not None:
        ignored = f"{cell.against}: {of_base}"
    apart = traces.not_side_by_side.get(comparison)
    cell = replace(
        cell,
        side_by_side=side_by_side,
        not_side_by_side=None if apart is None else apart.message,
        effective=effective_of(manifest, plan.keys),
        status="measured" if ignored is None else "ignored",
        reason=ignored,
    )
    try:
        pair = measure_pair(mu, pi, _context(comparison, mu, traces, context))
    except NotComparableError as error:
        return _failed(cell, error.message)
    size = rounding_size(pair)
    cell = replace(
        cell,
        pair=pair.summary,
        growth=growth_of(pair) if comparison.along else None,
        evidence=pair.figures.evidence,
        rounding_floor=rounding_floor(mu, pi),
        times_rounding=None if size is None else size.times,
    )
    return MeasuredCell(cell, pair)


def _context(comparison: Comparison, first: Trace, traces: ProbeTraces, context: Context) -> Context:
    ours, theirs = comparison.setting.tokens, comparison.against.tokens
    if "support" in (comparison.setting.policy, comparison.against.policy):
        return replace(context.of_repeat(first, traces.source), policy="support")
    if ours is None and theirs is None:
        return context.of_repeat(first, traces.source)
    drawn = traces.others[ours] if ours is not None and ours == theirs else traces.source
    return context.of_other_contexts(first, drawn, prompts=traces.source)


def _label_beside(setting: Setting, other: Setting, plan: Plan) -> str:
    """What the other one is called: with its path and engine where another computation has that label too, or with
    its side where that tells the two apart."""
    alike = {_computation(each) for each in plan.settings if each.label == other.label}
    (engine, path, side), own = _computation(other), _computation(setting)
    if len(alike) == 1 or own == (engine, path, side):
        return other.label
    if own[:2] == (engine, path):
        return f"{other.label}, {SIDES[side]}"
    return f"{other.label}, {path if engine == own[0] else f'{engine} {path}'}"


def _computation(setting: Setting) -> tuple[str, Path, Side]:
    return engine_of(str(setting.spec)), setting.path, setting.side


def _with_others(comparison: Comparison, found: Mapping[Comparison, MeasuredCell]) -> MeasuredCell:
    """The cell with what other cells of the plan say of it."""
    measured = found[comparison]
    differences = tuple(_difference(measured, found[other]) for other in comparison.less)
    ratio = None if comparison.over is None else _ratio(measured, found[comparison.over])
    errors = _errors(comparison, found)
    return replace(measured, cell=replace(measured.cell, differences=differences, ratio=ratio, errors=errors))


def _errors(comparison: Comparison, found: Mapping[Comparison, MeasuredCell]) -> ThirdParty | None:
    """None where the comparison has no third setting, or one of the three pairs could not be measured."""
    setting, against, third = comparison.setting, comparison.against, comparison.third
    if third is None:
        return None
    pairs = {frozenset((each.setting, each.against)): measured.pair for each, measured in found.items()}
    three = [pairs.get(frozenset(two)) for two in ((setting, third), (against, third), (setting, against))]
    known = [pair for pair in three if pair is not None]
    return related_errors(*known) if len(known) == len(three) else None


def _difference(measured: MeasuredCell, other: MeasuredCell) -> CellDifference:
    """Without a value where one of the two has no mean TV, or they are not of the same tokens."""
    difference = Interval(None)
    if measured.pair is not None and other.pair is not None:
        confidence = measured.pair.context.confidence
        with suppress(NotComparableError):
            difference = contrast([measured.pair, other.pair], [1, -1], confidence=confidence)
    return CellDifference(_name_of(other), difference)


def _ratio(measured: MeasuredCell, other: MeasuredCell) -> CellRatio | None:
    if measured.trusted is None or other.trusted is None:
        return None
    return ratio_of(measured.trusted, other.trusted, to=_name_of(other))


def _name_of(measured: MeasuredCell) -> str:
    return f"{measured.cell.setting} against {measured.cell.against}"


def _failed(cell: ProbeCell, reason: str) -> MeasuredCell:
    return MeasuredCell(replace(cell, status="failed", reason=reason))
