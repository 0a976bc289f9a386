"""The sections of a log on a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..foreign_text import printable
from .document import Report
from .log_sections import log_sections
from .logs.section import Line, Section

_STYLE = {"good": "green", "bad": "red", "caution": "yellow", "neutral": ""}
_MARK = {"good": "✓", "bad": "▲", "caution": "▲", "neutral": "·"}
_WIDEST_CELL = {"remark": 44, "is": 44, "difference": 36, "setting": 20, "against": 20, "path": 12}
"""Of the columns that may wrap."""


def show_log(report: Report, console: Console, *, verbose: bool) -> None:
    """Print every section; `verbose` leaves nothing out."""
    show_sections(log_sections(report, short=not verbose), console)


def show_sections(sections: Iterable[Section], console: Console) -> None:
    for section in sections:
        console.print()
        note = f"  {printable(section.note)}" if section.note else ""
        console.print(Text.assemble((section.title, "bold"), (note, "dim")))
        if section.lines:
            console.print(_lines(section.lines))
        if section.rows:
            console.print(_table(section, console.width))


def _lines(lines: tuple[Line, ...]) -> Table:
    grid = Table.grid(padding=(0, 1, 0, 0))
    for line in lines:
        style = _STYLE[line.tone]
        grid.add_row(Text(f"  {_MARK[line.tone]}", style), Text(printable(line.text), style))
        if line.remedy is not None:
            grid.add_row(Text("  →", "dim"), Text(printable(line.remedy)))
    return grid


def _table(section: Section, width: int) -> Table:
    """Columns are given up from the right until the rest fits: a number that lost its end would be another one."""
    columns = [[name, *cells] for name, *cells in zip(section.header, *section.rows, strict=True)]
    widths = [max(map(cell_len, cells)) for cells in columns]
    widths = [min(cell, _WIDEST_CELL.get(name, cell)) for name, cell in zip(section.header, widths, strict=True)]
    shown = len(columns)
    while shown > 2 and sum(widths[:shown]) + 2 * shown > width:
        shown -= 1
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for place, name in enumerate(section.header[:shown]):
        wraps = name in _WIDEST_CELL
        heading = Text(f"  {name}" if not place else name)
        table.add_column(heading, no_wrap=not wraps, overflow="fold" if wraps else "ellipsis")
    for row in section.rows:
        table.add_row(
            *(Text(printable(f"  {cell}" if not place else cell)) for place, cell in enumerate(row[:shown]))
        )
    return table
