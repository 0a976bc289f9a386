"""A table of figures on a terminal that gives up columns rather than digits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

_LABEL_WIDTH, _ESTIMATE_WIDTH, _NUMBER_WIDTH, _NOTE_WIDTH = 16, 26, 7, 14


def show_figures(
    console: Console,
    header: Sequence[str],
    rows: Sequence[tuple[str, ...]],
    droppable: Iterable[str],
    notes: list[str] | None = None,
) -> None:
    """Print a label, an estimate and numbers a row, with a note where there is room.

    The columns named in `droppable` are left out, one after the other, until the rest fits: a number that lost its
    end would be another number.
    """
    least = dict(zip(header, [_LABEL_WIDTH, _ESTIMATE_WIDTH, *[_NUMBER_WIDTH] * (len(header) - 2)], strict=True))
    columns = dict(zip(header, zip(*rows, strict=True), strict=True))
    widths = {name: max(map(cell_len, (name, *cells)), default=0) for name, cells in columns.items()}
    widths = {name: max(width, least[name]) for name, width in widths.items()}
    for name in droppable:
        if sum(widths.values()) + len(widths) - 1 <= console.width:
            break
        del widths[name], columns[name]
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    for place, name in enumerate(columns):
        title = Text(name, style="" if place else "not dim bold")
        table.add_column(title, justify="right" if place > 1 else "left", min_width=widths[name], no_wrap=True)
    if notes and console.width - sum(widths.values()) - len(widths) >= _NOTE_WIDTH:
        table.add_column("from", style="dim")
        columns["from"] = tuple(notes)
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*map(Text, cells))
    console.print(table)
