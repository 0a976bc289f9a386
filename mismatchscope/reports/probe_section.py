"""What a probe found, as the sentences and the table that every format shows alike."""

from __future__ import annotations

from .logs.section import Line, Section
from .pair_fields import PairSummary, Probe, ProbeCell, engine_of
from .text import UNKNOWN, estimate, number, share

_HEADER = ("setting", "against", "path", "mean TV", "same bits", "max TV", "KL", "remark")


def probe_section(probe: Probe) -> Section:
    """Conclusions first, then what could not be tried, then every cell."""
    lines = [Line(each.sentence) for each in probe.conclusion]
    lines += [
        Line(f"{cell.setting}, {of_cell(cell)}: {cell.status}, {cell.reason}", "caution")
        for cell in probe.cells
        if cell.status != "measured"
    ]
    engines = {engine_of(cell.engine) for cell in probe.cells}
    rows = tuple(
        (
            cell.setting,
            cell.against,
            cell.path if len(engines) == 1 else of_cell(cell),
            *_figures(cell.pair),
            _remark(cell),
        )
        for cell in probe.cells
    )
    return Section(title_of(probe), f"changed: {probe.factor}", tuple(lines), _HEADER, rows)


def title_of(probe: Probe) -> str:
    return f"probe {probe.name}"


def of_cell(cell: ProbeCell) -> str:
    """`transformers prefill`: the engine and the path of a cell."""
    return f"{engine_of(cell.engine)} {cell.path}"


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
