"""The verbs that read: a finished report in another form, thresholds over it, and facts about this machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from .frame import stdout, terminal, verb
from .options import FailOn, Force, Format
from .outcome import EXIT_CODES, append_step_summary


@verb
def report(
    path: Annotated[Path, typer.Argument(help="report.json, or the directory that holds it.")],
    format: Annotated[Format | None, typer.Option("--format", "-f", help="Default: as on the terminal.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write.  [stdout]")] = None,
    force: Force = False,
) -> None:
    """Show a finished report in another form."""
    from ..errors import OutputExistsError
    from ..records import write_atomic
    from ..report import Report
    from ..reports.console import show
    from ..reports.formats import render

    loaded = Report.load(path)
    if format is None:
        show(loaded, stdout(), verbose=terminal.verbose)
        return
    text = render(loaded, format.value)
    if output is None:
        sys.stdout.write(text)
        return
    if output.exists() and not force:
        raise OutputExistsError(f"{output} exists.", hint="choose another -o, or add --force")
    write_atomic(output, text.encode())


@verb
def gate(
    path: Annotated[Path, typer.Argument(help="report.json, or the directory that holds it.")],
    fail_on: FailOn = None,
    baseline: Annotated[Path | None, typer.Option(help="Report that '+10%' and '+0.002' refer to.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="TOML file with [gate] fail_on.")] = None,
) -> None:
    """Hold a report against thresholds: exit 0 pass, 1 fail, 4 inconclusive or not comparable."""
    from .. import gate as gates
    from ..config import load_settings
    from ..report import Report
    from ..reports.console import show_gates

    expressions = [*load_settings(config, {}, []).gate.fail_on, *(fail_on or [])]
    loaded = Report.load(path)
    decided = gates.apply(loaded, expressions, None if baseline is None else Report.load(baseline))
    show_gates(decided, stdout())
    append_step_summary(decided)
    raise typer.Exit(EXIT_CODES[decided.verdict])


@verb
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="The facts as JSON.")] = False,
) -> None:
    """Facts about this machine and every engine on it."""
    from ..doctor import examine
    from ..reports.facts import show_facts

    facts = examine()
    if as_json:
        sys.stdout.write(json.dumps(facts, indent=1) + "\n")
    else:
        show_facts(facts, stdout())
