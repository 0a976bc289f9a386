"""What a probe found, as the sentences and the table that every format shows alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .logs.section import Line, Section, interval_text
from .pair_fields import PairSummary, Probe, ProbeCell, engine_of
from .text import UNKNOWN, estimate, number, share

_FIGURES = ("mean TV", "same bits", "max TV", "KL")


def probe_sections(probe: Probe) -> Iterator[Section]:
    """Conclusions and what could not be tried; how much each change makes; every cell."""
    lines = (*(Line(each.sentence) for each in probe.conclusion), *_troubles(probe))
    shown = [cell for cell in probe.cells if cell.third is None]  # the others are in `probe_errors`
    against = list(dict.fromkeys(cell.against for cell in shown))
    others = _other_columns(probe)
    header = ("setting", "against", "path", *_FIGURES, *(name for name, _ in others), "remark")
    rows = tuple(
        (
            cell.setting,
            cell.against if len(against) > 1 else "",
            place_in(probe, cell),
            *_figures(cell.pair),
            *(text(cell) for _, text in others),
            _remark(cell),
        )
        for cell in shown
    )
    note = f"changed: {probe.factor}" + (f"; all against {against[0]}" if len(against) == 1 else "")
    if not probe.effects:
        yield Section(title_of(probe), note, lines, header, rows)
        return
    effects = tuple((effect.change, share(effect.share), interval_text(effect.tv)) for effect in probe.effects)
    yield Section(title_of(probe), note, lines, ("change", "share", "of mean TV"), effects)
    yield Section("every combination", "", (), header, rows)


def _other_columns(probe: Probe) -> list[tuple[str, Callable[[ProbeCell], str]]]:
    """Name and text of the columns that some probes have. Of several differences a cell shows the first."""
    columns: list[tuple[str, Callable[[ProbeCell], str]]] = []
    if any(cell.rounding_floor is not None for cell in probe.cells):
        columns.append(("of rounded logits", _rounding))
    if any(cell.differences for cell in probe.cells):
        columns.append(("difference", _difference))
    if any(cell.growth for cell in probe.cells):
        columns.append(("later / earlier half", lambda cell: interval_text(cell.growth) if cell.growth else ""))
    return columns


def _rounding(cell: ProbeCell) -> str:
    return "" if cell.rounding_floor is None else f"≤ {number(cell.rounding_floor)}"


def _difference(cell: ProbeCell) -> str:
    """`1.24e-4 [1.1e-4, 1.4e-4] to decode again against decode`."""
    if not cell.differences:
        return ""
    first = cell.differences[0]
    return f"{interval_text(first.tv)} to {first.than}"


def _troubles(probe: Probe) -> Iterator[Line]:
    """What could not be tried, each setting once; and each that others should have been held against."""
    told = set()
    for cell in probe.cells:
        if cell.status != "measured":
            own = not str(cell.reason).startswith(f"{cell.against}: ")
            key = (cell.setting, of_cell(cell), cell.reason) if own else cell.reason
            if key not in told:
                yield Line(f"{cell.setting}, {of_cell(cell)}: {cell.status}, {cell.reason}", "caution")
            told.add(key)


def title_of(probe: Probe) -> str:
    return f"probe {probe.name}"


def of_cell(cell: ProbeCell) -> str:
    """`transformers prefill`: the engine and the path of a cell."""
    return f"{engine_of(cell.engine)} {cell.path}"


def place_in(probe: Probe, cell: ProbeCell) -> str:
    """The same, without the engine where the probe has one."""
    return cell.path if len({engine_of(each.engine) for each in probe.cells}) == 1 else of_cell(cell)


def _figures(pair: PairSummary | None) -> tuple[str, str, str, str]:
    if pair is None:
        return (UNKNOWN,) * 4
    same = None if pair.same_tokens is None or not pair.tokens else pair.same_tokens / pair.tokens
    mean = pair.alpha.mean
    return (
        estimate(mean.value, mean.low, mean.high),
        share(same),
        number(pair.alpha.observed_max),
        number(None if pair.kl is None else pair.kl.mean),
    )


def _remark(cell: ProbeCell) -> str:
    if cell.status != "measured":
        return cell.status
    return "bit-identical" if cell.pair is not None and cell.pair.identical else ""
