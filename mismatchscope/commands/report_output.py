"""How a measuring verb ends: the report on disk and on the terminal, and the exit code of its verdict."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..errors import MissingDependencyError, OutputExistsError, UsageError
from ..file_errors import file_errors
from ..reports.formats import FORMATS
from .terminal import spinner, stderr, stdout, terminal

if TYPE_CHECKING:
    from ..reports.document import Report

EXIT_CODES = {"pass": 0, "none": 0, "fail": 1, "inconclusive": 4}


def write_and_exit(report: Report, directory: Path) -> None:
    """Write every form of the report, show it, and leave with the verdict's exit code."""
    from ..reports.console import show

    with spinner("writing the report"):
        written = write_forms(report, directory)
    show(report, stdout(), verbose=terminal.verbose)
    stderr().print(f"Written to {directory}/: {', '.join(written)}", markup=False, highlight=False, soft_wrap=True)
    append_step_summary(report)
    raise typer.Exit(EXIT_CODES[report.verdict])


@file_errors("The output cannot be written", hint="choose another -o", kind=UsageError)
def check_writable(output: Path, *, force: bool) -> None:
    """Raise `OutputExistsError` where `write_forms` would replace a file, unless that is wanted."""
    taken = [str(file) for file in _forms(output).values() if file.exists()]
    if taken and not force:
        raise OutputExistsError(f"{', '.join(taken)} exists.", hint="choose another -o, or add --force")


def write_forms(report: Report, output: Path) -> list[str]:
    """Write the report in the form of a file's suffix, or in every form into a directory; return the files' names.

    One whose packages are missing is left out of a directory, and named.
    """
    from ..durable import write_atomic
    from ..reports.formats import render

    forms, written = _forms(output), []
    for name, file in forms.items():
        try:
            texts = report.files(file) if name == "json" else {file: render(report, name)}
        except MissingDependencyError as error:
            if len(forms) == 1:
                raise
            stderr().print(f"{file.name} is left out: {error.message} {error.hint}", markup=False, soft_wrap=True)
            continue
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            for path, text in texts.items():
                write_atomic(path, text.encode())
                written.append(path.name)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
            raise UsageError(
                f"{file} cannot be written: {error.strerror or error}.", hint="choose another -o"
            ) from None
    return written


def _forms(output: Path) -> dict[str, Path]:
    """Where each form goes, by its name."""
    suffixes = {Path(format.file).suffix: name for name, format in FORMATS.items()}
    if output.suffix in suffixes and not output.is_dir():
        return {suffixes[output.suffix]: output}
    return {name: output / format.file for name, format in FORMATS.items()}


def append_step_summary(report: Report) -> None:
    """On GitHub Actions the report is part of the job's summary."""
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary and report.gates:
        from ..reports.formats import render

        with open(summary, "a", encoding="utf-8") as file:
            file.write(render(report, "markdown") + "\n")
