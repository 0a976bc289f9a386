"""`gate`: thresholds over a finished report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import FailOn
from .terminal import stdout
from .verdict import EXIT_CODES, append_step_summary


def gate(
    path: Annotated[Path, typer.Argument(help="report.json, or the directory that holds it.")],
    fail_on: FailOn = None,
    baseline: Annotated[Path | None, typer.Option(help="Report that '+10%' and '+0.002' refer to.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="TOML file with [gate] fail_on.")] = None,
) -> None:
    """Hold a report against thresholds: exit 0 pass, 1 fail, 4 inconclusive or not comparable."""
    from .. import gate as gates
    from ..config import load_settings
    from ..reports.console import show_gates
    from ..reports.document import Report

    expressions = [*load_settings(config, {}, []).gate.fail_on, *(fail_on or [])]
    loaded = Report.load(path)
    decided = gates.apply(loaded, expressions, None if baseline is None else Report.load(baseline))
    show_gates(decided, stdout())
    append_step_summary(decided)
    raise typer.Exit(EXIT_CODES[decided.verdict])
