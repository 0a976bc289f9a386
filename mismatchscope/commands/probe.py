"""`probe`: one thing changed at a time, on the same tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from ..probes.registry import PROBES, Entry
from .missing_environments import create_missing_environments
from .options import (
    SAMPLING,
    Assignments,
    Config,
    Force,
    Output,
    Overrides,
    Resume,
    model_inputs,
    takes_settings,
)
from .report_output import write_and_exit
from .terminal import command_line, progress, stdout

DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be run, and stop.")]
Runs = Annotated[
    Path | None,
    typer.Option("--runs", help="Directory of traces that probes share: none is made twice.  \\[runs, in -o]"),
]

_SETTINGS = (
    "model",
    "adapter",
    "behavior",
    "reference",
    "prompts",
    "prompt_column",
    "limit",
    *SAMPLING,
    "reference_temperature",
    "evidence",
    "budget",
    "confidence",
    "max_rejected",
    "tail",
    "probe.values",
    "probe.time",
    "gate.fail_on",
)


def commands() -> dict[str, Callable[..., None]]:
    """The verb of every probe."""
    return {name: _command(name, entry) for name, entry in PROBES.items()}


def _command(name: str, entry: Entry) -> Callable[..., None]:
    @takes_settings(*_SETTINGS)
    def command(
        overrides: Overrides,
        output: Output = None,
        runs: Runs = None,
        dry_run: DryRun = False,
        config: Config = None,
        assignments: Assignments = None,
        force: Force = False,
        resume: Resume = False,
    ) -> None:
        from ..collection.output import output_directory
        from ..collection.run_files import RUNS
        from ..config import load_settings
        from ..errors import ConfigError
        from ..probes.dry_run import plan_text
        from ..probes.run_probe import plan_probe, run_probe

        settings = load_settings(config, overrides, assignments or [])
        planned = plan_probe(name, settings)
        store = runs or (None if output is None else output / RUNS)
        if dry_run:
            stdout().print(plan_text(planned, settings, store), soft_wrap=True, end="")
            return
        if output is None:
            raise ConfigError("A probe writes its traces and its report somewhere.", hint="add -o DIR")
        create_missing_environments([settings.behavior, settings.reference], others=planned.specs)
        inputs = [settings.prompts, config, *model_inputs(settings)]
        with output_directory(output, force=force, resume=resume, inputs=inputs):
            with progress() as on_event:
                report = run_probe(
                    planned,
                    settings,
                    output,
                    store=store,
                    command=command_line(),
                    on_event=on_event,
                )
            write_and_exit(report, output)

    command.__doc__ = f"{entry.question}\n\nFor example: {entry.example}"
    return command
