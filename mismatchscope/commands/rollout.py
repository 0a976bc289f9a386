"""`rollout`: sample from an engine into a trace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .missing_environments import create_missing_environments
from .options import (
    Budget,
    EvidenceOption,
    Force,
    Limit,
    MaxNewTokens,
    PromptsFile,
    RequiredOutput,
    Resume,
    Samples,
    Seed,
    Temperature,
    TopK,
    TopP,
    settings_of,
)
from .terminal import progress, stdout


def rollout(
    engine: Annotated[str, typer.Option(help="Engine SPEC.")],
    output: RequiredOutput,
    model: Annotated[str, typer.Option(help="Local directory, hub id, demo:dense or demo:moe.")] = "demo:dense",
    prompts: PromptsFile = None,
    limit: Limit = None,
    samples: Samples = None,
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    seed: Seed = None,
    evidence: EvidenceOption = None,
    budget: Budget = None,
    force: Force = False,
    resume: Resume = False,
) -> None:
    """Sample from an engine and write its trace (and TRACE-raw where the sampler changed the distribution)."""
    given = settings_of(locals())
    from ..collection.collector import prepare_output
    from ..collection.single_trace import sample_trace
    from ..config import load_settings

    settings = load_settings(None, given, [])
    create_missing_environments([settings.behavior])
    prepare_output(output, force=force, resume=resume, inputs=[settings.prompts, Path(settings.model)])
    with progress() as on_event:
        manifest = sample_trace(settings, output, on_event=on_event)
    stdout().print(f"{output}: {manifest.counts.sequences} sequences, {manifest.counts.tokens} tokens")
