"""`analyze`: measure what the logs of a run hold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import following
from .following import Outlets, Watching
from .options import Force, Overrides, Ray, RequiredOutput, takes_settings
from .report_output import write_and_exit
from .terminal import command_line, progress

if TYPE_CHECKING:
    from ..reports.document import Report


@takes_settings("confidence", "max_rejected", "tail", "gate.fail_on")
def command(
    logs: Annotated[list[Path], typer.Argument(help="Files and directories that a trainer wrote.")],
    output: RequiredOutput,
    *,
    format: Annotated[str | None, typer.Option(help="The logs' format.  \\[by their content]")] = None,
    map: Annotated[
        Path | None, typer.Option(help="TOML file that says what the columns of any other format are.")
    ] = None,
    compare_with: Annotated[
        Path | None, typer.Option(help="What the run logged: JSONL of wandb, or TensorBoard's directory.")
    ] = None,
    trainer: Annotated[
        str | None, typer.Option(help="Whose metrics to recompute.  \\[the format's, or all]")
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(help="Of the mean TV: report the step and the lag that pass it.")
    ] = None,
    convert: Annotated[
        Path | None, typer.Option(help="New directory for traces of the log's policies, to compare.")
    ] = None,
    shift: Annotated[
        int,
        typer.Option(help="Repair: read the trainer's log-probs of token t at t + N.  \\[0]", show_default=False),
    ] = 0,
    mask: Annotated[
        str,
        typer.Option(
            help="Which tokens count: recorded, all, scored (no log-prob is 0), or where a column is not 0."
        ),
    ] = "recorded",
    drop_duplicates: Annotated[
        bool, typer.Option("--drop-duplicates", help="Repair: leave responses out that came before.")
    ] = False,
    discount: Annotated[
        float | None, typer.Option(help="γ of the discounted bounds, with --advantage-max.")
    ] = None,
    advantage_max: Annotated[
        float | None, typer.Option(help="ε of the discounted bounds: the largest |advantage|, rewards within ±1.")
    ] = None,
    correction: Annotated[
        list[str] | None,
        typer.Option(
            help="Another correction: RULE:key=value, a trainer, or one of its presets. Repeatable.",
            show_default=False,
        ),
    ] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Processes that share the reading.  \\[one a core]")
    ] = None,
    ray: Ray = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on looking, until Ctrl-C or a gate that fails.")
    ] = False,
    every: Annotated[float, typer.Option(min=0.1, help="With --follow: seconds from one look to the next.")] = 10.0,
    until_idle: Annotated[
        float | None, typer.Option(min=0.0, help="With --follow: end when so many seconds brought nothing new.")
    ] = None,
    prometheus: Annotated[
        Path | None, typer.Option(help="Write the main figures to this text file, for Prometheus.")
    ] = None,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Write the main figures into this directory, as TensorBoard's scalars.")
    ] = None,
    overrides: Overrides,
    force: Force = False,
) -> None:
    """Measure what the logs of a run hold: how far apart the policies were, since when, and what corrections do."""
    from .. import gate
    from ..analysis.analyze import analyze, mapper_of
    from ..analysis.follow import Follower
    from ..analysis.repairs import Repairs
    from ..analysis.settings import AnalysisSettings
    from ..collection.output import output_directory
    from ..collection.run_files import CHECKPOINT
    from ..config import load_settings
    from ..errors import UsageError

    settings = load_settings(None, overrides, [])
    gate.check_without_baseline(settings.gate.fail_on)
    if follow and convert is not None:
        raise UsageError(
            "--convert writes traces of a whole log, which --follow has not yet.", hint="convert it at the end"
        )
    if follow and drop_duplicates:
        raise UsageError(
            "--drop-duplicates reads a whole log first, which --follow cannot.", hint="leave one of both out"
        )
    asked = AnalysisSettings(
        confidence=settings.confidence,
        max_rejected=settings.max_rejected,
        tolerance=tolerance,
        trainer=trainer,
        tail=settings.tail,
        repairs=Repairs(shift=shift, mask=mask),
        corrections=tuple(correction or ()),
        discount=discount,
        advantage_max=advantage_max,
    )

    def judged(report: Report) -> Report:
        return gate.apply(report, settings.gate.fail_on) if settings.gate.fail_on else report

    outlets = Outlets(prometheus, tensorboard)
    resume = follow and not force and (output / CHECKPOINT).exists()
    hint = "choose another -o, or add --force"
    with output_directory(output, force=force, resume=resume, inputs=logs, hint=hint):
        if follow:
            follower = Follower(
                logs,
                asked,
                mapper_of(processes, ray),
                output / CHECKPOINT,
                format=format,
                column_map=map,
                compare_with=compare_with,
                command=command_line(),
            )
            following.follow(follower, output, Watching(every, until_idle), outlets, judged)
        with progress() as on_event:
            report = analyze(
                logs,
                asked,
                format=format,
                column_map=map,
                compare_with=compare_with,
                processes=processes,
                ray=ray,
                convert_to=convert,
                drop_duplicates=drop_duplicates,
                command=command_line(),
                on_tokens=lambda tokens: on_event({"event": "measured", "rows": tokens}),
            )
        report = judged(report)
        outlets.tell(report)
        outlets.close()
        write_and_exit(report, output)
