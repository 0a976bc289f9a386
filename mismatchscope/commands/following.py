"""`analyze --follow`: look at the logs again and again, show what they say, and end when a gate fails."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import EmptyComparisonError
from .report_output import write_and_exit, write_file
from .terminal import show_note, stderr, terminal

if TYPE_CHECKING:
    from rich.console import Group

    from ..analysis.follow import Follower
    from ..reports.document import Report
    from ..reports.tensorboard import Scalars


@dataclass(frozen=True)
class Watching:
    """How a log is followed: pauses between looks and the silence that ends it, in seconds."""

    every: float
    until_idle: float | None = None


class Outlets:
    """Who else is told of a report: a Prometheus text file, TensorBoard."""

    def __init__(self, prometheus: Path | None, tensorboard: Path | None) -> None:
        """Raises `MissingDependencyError` where TensorBoard is asked for and cannot be written."""
        self._prometheus = prometheus
        self._scalars: Scalars | None = None
        if tensorboard is not None:
            from ..reports.tensorboard import Scalars

            self._scalars = Scalars(tensorboard)

    def tell(self, report: Report) -> None:
        if self._prometheus is not None:
            from ..reports.prometheus import render

            write_file(self._prometheus, render(report, time.time()))
        if self._scalars is not None:
            self._scalars.write(report)

    def close(self) -> None:
        if self._scalars is not None:
            self._scalars.close()


def follow(
    follower: Follower,
    output: Path,
    watching: Watching,
    outlets: Outlets,
    judged: Callable[[Report], Report],
) -> None:
    """Look until a gate fails, nothing new has come for long enough, or Ctrl-C; then write the report and exit.

    `judged` applies the gates. Ctrl-C is how following ends, so the exit code is the verdict's then too. What was
    just being read at that moment is in no figure, and is read after a restart.
    """
    reason = follower.resume()
    if reason is not None:
        show_note(f"The checkpoint in {output} is not gone on from: {reason}. The log is read from its start.")
    report: Report | None = None
    try:
        with _view() as show:
            last_news = time.monotonic()
            while report is None or report.verdict != "fail":
                idle = time.monotonic() - last_news
                is_last = watching.until_idle is not None and idle >= watching.until_idle
                tokens = follower.look(last=is_last)
                if tokens or report is None:
                    found = follower.report()
                    report = None if found is None else judged(found)
                if tokens and report is not None:
                    last_news = time.monotonic()
                    for path, text in report.files(output / "report.json").items():
                        write_file(path, text)
                    follower.save()
                if report is not None:
                    outlets.tell(report)
                show(report, tokens)
                if is_last:
                    break
                time.sleep(watching.every)
    except KeyboardInterrupt:
        if report is None:
            raise
    finally:
        if report is not None:
            outlets.tell(report)
        outlets.close()
    if report is None:
        raise EmptyComparisonError(
            "No token that was finished has a legal log-prob of both policies.",
            hint="docs/logs.md says when a file of each format is finished",
        )
    write_and_exit(report, output)


@contextlib.contextmanager
def _view() -> Iterator[Callable[[Report | None, int], None]]:
    """Something to show each look with: a view that stays in place on a terminal, else a line for what is new."""
    console = stderr()
    if terminal.quiet:
        yield lambda report, tokens: None
    elif console.is_terminal:
        from rich.live import Live

        with Live(console=console, auto_refresh=False, transient=True) as live:
            yield lambda report, tokens: live.update(_screen(report), refresh=True)
    else:
        waiting: list[bool] = []

        def line(report: Report | None, tokens: int) -> None:
            if report is not None and tokens:
                console.print(f"{tokens:,} tokens more. {report.finding.sentence}", soft_wrap=True)
            elif report is None and not waiting:
                waiting.append(True)
                console.print("Nothing is finished yet.", soft_wrap=True)

        yield line


def _screen(report: Report | None) -> Group:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from ..reports.console import gate_table
    from ..reports.figure_paths import figure_at
    from ..reports.text import estimate, number
    from ..reports.watched_figures import WATCHED

    when = Text(f"looked at {time.strftime('%H:%M:%S')} · Ctrl-C ends it and writes the report", style="dim")
    if report is None:
        return Group(Text("Nothing is finished yet."), when)
    table = Table.grid(padding=(0, 2, 0, 0))
    for path, meaning in WATCHED.items():
        figure = figure_at(report, path)
        is_exact = figure.low == figure.value == figure.high
        shown = number(figure.value) if is_exact else estimate(figure.value, figure.low, figure.high)
        table.add_row(Text(path), Text(shown), Text(meaning, style="dim"))
    return Group(Text(report.finding.sentence), table, gate_table(report.gates), when)
