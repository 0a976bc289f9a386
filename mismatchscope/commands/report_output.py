"""How a measuring verb ends: the report on disk and on the terminal, and the exit code of its verdict."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..errors import MissingDependencyError
from ..reports.formats import FORMATS
from .terminal import spinner, stderr, stdout, terminal

if TYPE_CHECKING:
    from ..reports.document import Report

EXIT_CODES = {"pass": 0, "none": 0, "fail": 1, "inconclusive": 4}


def write_and_exit(report: Report, directory: Path) -> None:
    """Write every form of the report, show it, and leave with the verdict's exit code."""
    from ..reports.console import show

    with spinner("writing the report"):
        written = _write_reports(report, directory)
    show(report, stdout(), verbose=terminal.verbose)
    stderr().print(f"Written to {directory}/: {', '.join(written)}", markup=False, highlight=False, soft_wrap=True)
    append_step_summary(report)
    raise typer.Exit(EXIT_CODES[report.verdict])


def _write_reports(report: Report, directory: Path) -> list[str]:
    """Every format; one whose packages are missing is left out, and named."""
    from ..records import write_atomic
    from ..reports.formats import render

    written = []
    for name, format in FORMATS.items():
        try:
            text = render(report, name)
        except MissingDependencyError as error:
            stderr().print(f"{format.file} is left out: {error.message} {error.hint}", markup=False, soft_wrap=True)
            continue
        write_atomic(directory / format.file, text.encode())
        written.append(format.file)
    return written


def append_step_summary(report: Report) -> None:
    """On GitHub Actions the report is part of the job's summary."""
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary and report.gates:
        from ..reports.formats import render

        with open(summary, "a", encoding="utf-8") as file:
            file.write(render(report, "markdown") + "\n")
