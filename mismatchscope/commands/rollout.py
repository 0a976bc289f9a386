"""`rollout`: sample from an engine into a trace."""

from __future__ import annotations

from typing import Annotated

import typer

from .missing_environments import create_missing_environments
from .options import (
    SAMPLING,
    Force,
    Overrides,
    Ray,
    RayWorkers,
    RequiredOutput,
    Resume,
    model_inputs,
    takes_settings,
)
from .terminal import progress, show_note, stdout


@takes_settings("model", "adapter", "prompts", "prompt_column", "limit", *SAMPLING, "evidence", "budget")
def command(
    engine: Annotated[str, typer.Option(help="Engine SPEC.")],
    output: RequiredOutput,
    overrides: Overrides,
    force: Force = False,
    resume: Resume = False,
    ray: Ray = None,
    ray_workers: RayWorkers = None,
) -> None:
    """Sample from an engine and write its trace (and TRACE-raw where the sampler changed the distribution)."""
    from ..collection.output import output_directory
    from ..collection.ray_workers import job_runner
    from ..collection.single_trace import sample_trace
    from ..config import load_settings
    from ..traces.store import raw_path_of

    settings = load_settings(None, overrides | {"behavior": engine}, [])
    create_missing_environments([settings.behavior])
    inputs = [settings.prompts, *model_inputs(settings)]
    raw = [raw_path_of(output)] if settings.sampling.sampling().transforms else []
    with (
        output_directory(output, force=force, resume=resume, inputs=inputs, beside=raw),
        progress() as on_event,
    ):
        manifest = sample_trace(settings, output, on_event=on_event, run=job_runner(ray, ray_workers))
    for note in manifest.notes:
        show_note(note)
    stdout().print(
        f"{output}: {manifest.counts.sequences} sequences, {manifest.counts.tokens} tokens", soft_wrap=True
    )
