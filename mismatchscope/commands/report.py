"""`report`: a finished report in another form."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..reports.formats import FORMATS, render
from .options import Force
from .report_output import write_file
from .terminal import stdout, terminal, write_document


def command(
    path: Annotated[Path, typer.Argument(help="report.json, or the directory that holds it.")],
    format: Annotated[
        str | None,
        typer.Option("--format", "-f", metavar=f"<{'|'.join(FORMATS)}>", help="Default: as on the terminal."),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write.  \\[stdout]")] = None,
    force: Force = False,
) -> None:
    """Show a finished report in another form."""
    from ..errors import OutputExistsError
    from ..reports.console import show
    from ..reports.document import Report

    loaded = Report.load(path)
    if format is None:
        show(loaded, stdout(), verbose=terminal.verbose)
        return
    text = render(loaded, format)
    if output is None:
        write_document(text)
        return
    if output.exists() and not force:
        raise OutputExistsError(f"{output} exists.", hint="choose another -o, or add --force")
    write_file(output, text)
