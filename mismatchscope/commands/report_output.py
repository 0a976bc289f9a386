"""How a measuring verb ends: the report on disk and on the terminal, and the exit code of its verdict."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..errors import DiskFullError, MismatchScopeError, MissingDependencyError, OutputExistsError, UsageError
from ..file_errors import NO_ROOM, file_errors
from ..reports.formats import FORMATS
from .terminal import show_note, spinner, stderr, stdout, terminal

if TYPE_CHECKING:
    from ..reports.document import Report

EXIT_CODES = {"pass": 0, "none": 0, "fail": 1, "inconclusive": 4}


def write_and_exit(report: Report, directory: Path) -> None:
    """Write every form of the report, show it, and leave with the verdict's exit code."""
    from ..reports.console import show

    try:
        with spinner("writing the report"):
            written = write_forms(report, directory)
    except MismatchScopeError:
        show(report, stdout(), verbose=terminal.verbose)  # it took long to know, and is kept nowhere else
        raise
    show(report, stdout(), verbose=terminal.verbose)
    stderr().print(f"Written to {directory}/: {', '.join(written)}", soft_wrap=True)
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

    One whose packages are missing is left out of a directory, and named. Raises `DiskFullError`, and `UsageError`
    for a place that cannot be written; the forms that were written before stay.
    """
    from ..reports.formats import render

    forms, written = _forms(output), []
    for name, file in forms.items():
        try:
            texts = report.files(file) if name == "json" else {file: render(report, name)}
        except MissingDependencyError as error:
            if len(forms) == 1:
                raise
            show_note(f"{file.name} is left out: {error.message} {error.hint}")
            continue
        for path, text in texts.items():
            write_file(path, text)
            written.append(path.name)
    return written


def write_file(path: Path, text: str) -> None:
    """Write one form of a report. Raises `DiskFullError`, and `UsageError` for a place that cannot be written."""
    from ..durable import write_atomic

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text.encode())
    except OSError as error:
        problem = f"{path} cannot be written: {error.strerror or error}."
        if error.errno in NO_ROOM:
            raise DiskFullError(
                f"{problem} What was written before is kept.",
                hint="make room, then repeat the command, an audit with --resume",
            ) from None
        raise UsageError(problem, hint="choose another -o") from None


def _forms(output: Path) -> dict[str, Path]:
    """Where each form goes, by its name."""
    suffixes = {Path(format.file).suffix: name for name, format in FORMATS.items()}
    if output.suffix in suffixes and not output.is_dir():
        return {suffixes[output.suffix]: output}
    return {name: output / format.file for name, format in FORMATS.items()}


def append_step_summary(report: Report) -> None:
    """On GitHub Actions the report is part of the job's summary; one that cannot be written changes no verdict."""
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary and report.gates:
        from ..reports.formats import render

        text = render(report, "markdown") + "\n"
        try:
            # Without waiting: of a FIFO that nobody reads, opening would not return.
            descriptor = os.open(summary, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o644)
            with open(descriptor, "a", encoding="utf-8") as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise OSError(errno.EINVAL, "it is no file")
                file.write(text)
        except OSError as error:
            show_note(f"The step summary {summary} cannot be written: {error.strerror or error}.")
