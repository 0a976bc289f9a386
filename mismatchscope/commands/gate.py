"""`gate`: thresholds over a finished report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..gate import Allowance
from .options import Overrides, takes_settings
from .report_output import EXIT_CODES, append_step_summary, check_writable, write_forms
from .terminal import stderr, stdout

_ALLOWANCES = (
    "Difference from the baseline that is meant; repeatable. other-weights: two checkpoints of one run. Evidence, "
    "policy, tokenizer, prompts and sampling must agree all the same."
)


@takes_settings("gate.fail_on")
def command(
    path: Annotated[Path, typer.Argument(help="report.json, or the directory that holds it.")],
    overrides: Overrides,
    baseline: Annotated[Path | None, typer.Option(help="Report that '+10%' and '+0.002' refer to.")] = None,
    allow: Annotated[list[Allowance] | None, typer.Option(help=_ALLOWANCES)] = None,
    config: Annotated[Path | None, typer.Option("--config", help="TOML file with \\[gate] fail_on.")] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Directory for every form of the decided report, or one .xml, .md or .json file.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace such files that are there.")] = False,
) -> None:
    """Hold a report against thresholds: exit 0 pass, 1 fail, 4 inconclusive or not comparable."""
    from ..config import load_settings
    from ..gate import apply
    from ..reports.console import show_gates
    from ..reports.document import Report

    configured = load_settings(config, {}, []).gate.fail_on if config is not None else []
    expressions = [*configured, *(overrides["gate.fail_on"] or [])]
    if output is not None:
        check_writable(output, force=force)
    report = Report.load(path)
    decided = apply(report, expressions, None if baseline is None else Report.load(baseline), allowed=allow or ())
    if output is not None:
        written = write_forms(decided, output)
        stderr().print(f"Written: {', '.join(written)}", soft_wrap=True)
    if decided.finding.code == "log_in_doubt":
        stderr().print(decided.finding.sentence, style="yellow")
    show_gates(decided.gates, stdout())
    append_step_summary(decided)
    raise typer.Exit(EXIT_CODES[decided.verdict])
