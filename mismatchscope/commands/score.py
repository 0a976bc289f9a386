"""`score`: force a trace's tokens through an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .missing_environments import create_missing_environments
from .options import Force, Overrides, Ray, RayWorkers, RequiredOutput, Resume, model_inputs, takes_settings
from .terminal import progress, stdout


@takes_settings("model", "adapter")
def command(
    trace: Annotated[Path, typer.Argument(help="The trace whose tokens are forced.")],
    engine: Annotated[str, typer.Option(help="Engine SPEC.")],
    output: RequiredOutput,
    overrides: Overrides,
    role: Annotated[
        Literal["reference", "target", "behavior"], typer.Option(help="What the trace will stand for.")
    ] = "reference",
    path: Annotated[
        Literal["prefill", "decode"], typer.Option(help="Whole sequences, or token by token.")
    ] = "prefill",
    temperature: Annotated[
        float | None, typer.Option(help="What the logits are divided by.  \\[the trace's temperature]")
    ] = None,
    shuffle_seed: Annotated[int | None, typer.Option(help="Reorder the sequences, and so every batch.")] = None,
    force: Force = False,
    resume: Resume = False,
    ray: Ray = None,
    ray_workers: RayWorkers = None,
) -> None:
    """Teacher-force the tokens of a trace through an engine, with the evidence that the trace has."""
    from ..collection.output import output_directory
    from ..collection.ray_workers import job_runner
    from ..collection.single_trace import ScoreSettings, score_trace
    from ..config import load_settings

    given = load_settings(None, overrides | {"reference": engine}, [])  # and the SPEC is checked
    create_missing_environments([engine])
    inputs = [trace, *model_inputs(given)]
    with output_directory(output, force=force, resume=resume, inputs=inputs), progress() as on_event:
        settings = ScoreSettings(engine, given.model, role, path, temperature, shuffle_seed, given.adapter)
        run = job_runner(ray, ray_workers)
        manifest = score_trace(trace, output, settings, on_event=on_event, run=run)
    stdout().print(
        f"{output}: {manifest.counts.sequences} sequences, {manifest.counts.tokens} tokens", soft_wrap=True
    )
