"""`diagnose`: what causes the gap, and the experiments that prove it."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .confirming import Asked, check_confirmable, confirmed, plan_text
from .diagnosed import LogReading, diagnosed, failed, kind_of
from .options import Force, Output, Overrides, Resume, takes_settings
from .report_output import EXIT_CODES, write_forms
from .terminal import show_note, spinner, stderr, stdout, write_document

if TYPE_CHECKING:
    from ..reports.document import Report

_INCONCLUSIVE = EXIT_CODES["inconclusive"]
_TAKEN = {False: "choose another -o, or add --force", True: "choose another -o, or add --force or --resume"}
"""What to do about an output directory that is not empty, without experiments and with them."""


@takes_settings("model", "adapter", "behavior", "reference", "prompts", "prompt_column", "limit", "confidence")
def command(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="DIR|TRACE_MU TRACE_PI|LOGS...", help="A report, two traces, or the logs of a run."),
    ],
    overrides: Overrides,
    output: Output = None,
    confirm: Annotated[
        bool, typer.Option("--confirm", help="Run the experiments that tell the causes that are left apart.")
    ] = False,
    time: Annotated[
        str,
        typer.Option(help="With --confirm: begin no probe that is estimated to end later, no candidate after it."),
    ] = "10min",
    candidate: Annotated[
        list[str] | None,
        typer.Option(help="With --confirm, of a log: checkpoint that it may be of, PATH or NAME=PATH. Repeatable."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --confirm: show which experiments would be run, and stop.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the diagnosis as JSON.")] = False,
    format: Annotated[str | None, typer.Option(help="The logs' format.  \\[by their content]")] = None,
    map: Annotated[
        Path | None, typer.Option(help="TOML file that says what the columns of any other format are.")
    ] = None,
    force: Force = False,
    resume: Resume = False,
) -> None:
    """Say what causes the gap, why, and what to do; with --confirm, prove it.

    Exit 0 where something is said, 4 where it cannot be told whether the gap is more than rounding. With --confirm,
    0 where something is proved or one cause is left, else 4.
    """
    from ..collection.output import output_directory
    from ..config import load_settings
    from ..errors import MismatchScopeError, UsageError

    kind, given = kind_of(paths), {key: value for key, value in overrides.items() if value is not None}
    asked = Asked.of(paths, kind, given, time=time, candidates=candidate or [], reading=LogReading(format, map))
    if confirm:
        check_confirmable(asked)
        if output is None and not dry_run:
            raise UsageError("Experiments write their traces and the report somewhere.", hint="add -o DIR")
    inputs = [*paths, *asked.inputs]
    output = None if dry_run else output
    with (
        nullcontext()
        if output is None
        else output_directory(output, force=force, resume=resume and confirm, inputs=inputs, hint=_TAKEN[confirm])
    ):
        report = diagnosed(paths, kind, load_settings(None, overrides, []), asked.reading)
        if confirm and dry_run:
            stdout().print(plan_text(asked, report), soft_wrap=True, end="")
            return
        answer = report.diagnosis_answer
        if confirm and answer is not None and answer.code == "identical":
            show_note("No token differs, so there is nothing to confirm.")
        elif confirm and output is not None:
            write_forms(report, output)  # whatever becomes of the experiments
            report = report.model_copy(update={"confirmation": confirmed(asked, report, output)})
        if output is not None:
            with spinner("writing the report"):
                written = write_forms(report, output)
            stderr().print(f"Written to {output}/: {', '.join(written)}", soft_wrap=True)
        if (alarm := failed(report)) is not None and report.confirmation is None:
            raise MismatchScopeError(alarm.message, alarm.remedy)
        _show(report, as_json=as_json)
    raise typer.Exit(_exit_code(report))


def _show(report: Report, *, as_json: bool) -> None:
    if as_json:
        fields = {"diagnosis", "diagnosis_answer", "confirmation"}
        content = json.loads(report.model_dump_json(include=fields))
        write_document(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        return
    from ..reports.console_diagnosis import show_diagnosis

    show_diagnosis(report, stdout())


def _exit_code(report: Report) -> int:
    answer, experiments = report.diagnosis_answer, report.confirmation
    if experiments is not None:
        told = experiments.proof is not None or experiments.cause is not None
    else:
        told = answer is not None and answer.code != "cannot_tell"
    return EXIT_CODES["pass"] if told else _INCONCLUSIVE
