"""`gate`: thresholds over a finished report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Overrides, takes_settings
from .report_output import EXIT_CODES, append_step_summary
from .terminal import stdout


@takes_settings("gate.fail_on")
def command(
    path: Annotated[Path, typer.Argument(help="report.json, or the directory that holds it.")],
    overrides: Overrides,
    baseline: Annotated[Path | None, typer.Option(help="Report that '+10%' and '+0.002' refer to.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="TOML file with [gate] fail_on.")] = None,
) -> None:
    """Hold a report against thresholds: exit 0 pass, 1 fail, 4 inconclusive or not comparable."""
    from ..config import load_settings
    from ..gate import apply
    from ..reports.console import show_gates
    from ..reports.document import Report

    configured = load_settings(config, {}, []).gate.fail_on if config is not None else []
    expressions = [*configured, *(overrides["gate.fail_on"] or [])]
    report = Report.load(path)
    decided = apply(report, expressions, None if baseline is None else Report.load(baseline))
    show_gates(decided, stdout())
    append_step_summary(decided)
    raise typer.Exit(EXIT_CODES[decided.verdict])
