"""What a probe found, as the sentences and the table that every format shows alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .internals_table import stage_table
from .logs.section import Line, Section, interval_text
from .pair_fields import SIDES, PairSummary, PrefixMeasures, Probe, ProbeCell, ProbeInteraction, engine_of
from .routing_section import layers_section
from .sampler_table import STEPS, step_rows
from .text import UNKNOWN, number, share

_LENGTHS = ("first tokens", "TV of responses", "log ρ", "its spread", "responses")

_Column = tuple[str, Callable[[ProbeCell], str]]


def probe_sections(probe: Probe) -> Iterator[Section]:
    """Conclusions and what could not be tried; how much each change makes; every cell."""
    lines = (*(Line(each.sentence) for each in probe.conclusion), *_troubles(probe), *_side_by_side(probe))
    shown = [cell for cell in probe.cells if cell.third is None]  # the others are in `probe_errors`
    columns = list(_columns(probe))
    header = tuple(name for name, _ in columns)
    rows = tuple(tuple(text(cell) for _, text in columns) for cell in shown)
    against, places = {cell.against for cell in shown}, {place_in(probe, cell) for cell in shown}
    alike = [f"against {next(iter(against))}"] if len(against) == 1 else []
    alike += [f"by {next(iter(places))}"] if len(places) == 1 else []
    note = f"changed: {probe.factor}" + (f"; all {', '.join(alike)}" if alike else "")
    if probe.effects:
        effects = tuple((each.change, _short(each.share), interval_text(each.tv)) for each in probe.effects)
        effects += tuple(
            (f"{each.changes}, together", _short(each.share), interval_text(each.tv)) for each in told_apart(probe)
        )
        yield Section(title_of(probe), note, lines, ("change", "share", "of mean TV"), effects)
        every = probe.design is not None and probe.design.resolution is None
        yield Section("every combination" if every else "the combinations that were run", "", (), header, rows)
    elif probe.lengths:
        yield Section(title_of(probe), note, lines, _LENGTHS, tuple(map(_of_length, probe.lengths)))
        yield Section("a token at a time", "", (), header, rows)
    elif probe.transforms:
        yield Section(title_of(probe), "one transform after another", lines, STEPS, step_rows(probe))
        yield Section("the policies themselves", note, (), header, rows)
    elif probe.routing is not None:
        yield Section(title_of(probe), note, lines, header, rows)
        yield layers_section(probe.routing)
    elif probe.internals is not None:
        of_stages, names, stages = stage_table(probe.internals)
        yield Section(title_of(probe), of_stages, lines, names, stages)
        yield Section("the policies themselves", note, (), header, rows)
    else:
        yield Section(title_of(probe), note, lines, header, rows)


def _columns(probe: Probe) -> Iterator[_Column]:
    """Name and text of each; a narrow terminal shows the first ones."""
    yield "setting", lambda cell: cell.setting
    yield "mean TV", lambda cell: _of_pair(cell, lambda pair: interval_text(pair.alpha.mean))
    if len({cell.against for cell in probe.cells}) > 1:
        yield "against", lambda cell: cell.against
    if len({place_in(probe, cell) for cell in probe.cells}) > 1:
        yield "path", lambda cell: place_in(probe, cell)
    yield "same bits", lambda cell: _of_pair(cell, lambda pair: share(pair.same_share))
    yield "max TV", lambda cell: _of_pair(cell, lambda pair: number(pair.alpha.observed_max))
    yield "KL", lambda cell: _of_pair(cell, lambda pair: number(None if pair.kl is None else pair.kl.mean))
    if len({cell.evidence for cell in probe.cells if cell.evidence is not None}) > 1:
        yield "evidence", lambda cell: UNKNOWN if cell.evidence is None else cell.evidence
    if any(cell.rounding_floor is not None for cell in probe.cells):
        yield "of rounded logits", _rounding
    if any(cell.differences for cell in probe.cells):
        yield "difference", _difference
    if any(cell.growth for cell in probe.cells):
        yield "later / earlier half", lambda cell: interval_text(cell.growth) if cell.growth else ""
    if any(cell.ratio for cell in probe.cells):
        yield "ratio", _ratio
    yield "remark", _remark


def _of_length(row: PrefixMeasures) -> tuple[str, ...]:
    tokens, responses = f"{row.tokens:,}", f"{row.n:,}"
    return (tokens, interval_text(row.tv), number(row.log_ratio), number(row.spread), responses)


def _of_pair(cell: ProbeCell, text: Callable[[PairSummary], str]) -> str:
    return UNKNOWN if cell.pair is None else text(cell.pair)


def _rounding(cell: ProbeCell) -> str:
    return "" if cell.rounding_floor is None else f"≤ {number(cell.rounding_floor)}"


def _ratio(cell: ProbeCell) -> str:
    """`0.79 [0.72, 0.85] of whole`: the setting of the cell that it is a multiple of."""
    if cell.ratio is None:
        return ""
    return f"{interval_text(cell.ratio.value)} of {cell.ratio.to.partition(' against ')[0]}"


def _difference(cell: ProbeCell) -> str:
    """`1.24e-4 [1.1e-4, 1.4e-4] to decode again against decode`: the first of several."""
    if not cell.differences:
        return ""
    first = cell.differences[0]
    if first.tv.value is None:
        return UNKNOWN
    return f"{interval_text(first.tv)} to {first.than}"


def _troubles(probe: Probe) -> Iterator[Line]:
    """What could not be tried, each setting once; and each that others should have been held against. Last, what
    there was nothing to try on."""
    told = set()
    for cell in probe.cells:
        if cell.status in ("ignored", "failed"):
            own = not str(cell.reason).startswith(f"{cell.against}: ")
            place = computation_in(probe, cell)
            key = (cell.setting, place, cell.reason) if own else cell.reason
            if key not in told:
                yield Line(f"{cell.setting}, {place}: {cell.status}, {cell.reason}", "caution")
            told.add(key)
    for setting, reason in dict.fromkeys(
        (cell.setting, cell.reason) for cell in probe.cells if cell.status == "left_out"
    ):
        yield Line(f"{setting}: left out, {reason}")


def _side_by_side(probe: Probe) -> Iterator[Line]:
    """Which cells are of whole distributions that nothing is stored of, and why others are not."""
    able = sum(cell.side_by_side for cell in probe.cells)
    if able:
        of = "All cells are" if able == len(probe.cells) else f"{able} of {len(probe.cells)} cells are"
        yield Line(f"{of} of whole distributions, compared side by side in one process and not stored.")
    for reason in dict.fromkeys(filter(None, (cell.not_side_by_side for cell in probe.cells))):
        yield Line(f"Not side by side, and with less evidence: {reason}")


def told_apart(probe: Probe) -> list[ProbeInteraction]:
    """What two changes do together, where it is told from nothing."""
    return [each for each in probe.interactions if each.tv.excludes(0)]


def tells_cells_apart(probe: Probe) -> bool:
    """Whether the setting alone names a cell, so that its engine need not be said."""
    return len({cell.setting for cell in probe.cells}) == len(probe.cells)


def title_of(probe: Probe) -> str:
    return f"probe {probe.name}"


def computation_in(probe: Probe, cell: ProbeCell) -> str:
    """`transformers prefill`: the engine and the path of a cell, and the side where both sides have such cells."""
    name = _computation(cell)
    sides = {each.side for each in probe.cells if _computation(each) == name}
    return f"{name}, {SIDES[cell.side]}" if len(sides) > 1 and cell.side is not None else name


def place_in(probe: Probe, cell: ProbeCell) -> str:
    """The same, without the engine where the path or the setting tells it."""
    computations = {computation_in(probe, each) for each in probe.cells}
    engine_tells = len(computations) > len({each.path for each in probe.cells})
    return computation_in(probe, cell) if engine_tells and not tells_cells_apart(probe) else cell.path


def _computation(cell: ProbeCell) -> str:
    return f"{engine_of(cell.engine)} {cell.path}"


def _short(part: float | None) -> str:
    """A share of a gap, whose interval leaves no more digits."""
    return share(None if part is None else round(part, 3))


def _remark(cell: ProbeCell) -> str:
    if cell.status != "measured":
        return cell.status.replace("_", " ")
    if cell.conditioned_on is not None:
        return "routing-conditioned"
    return "bit-identical" if cell.pair is not None and cell.pair.identical else ""
