"""`audit`: the whole way, ending with a verdict."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError
from .missing_environments import create_missing_environments
from .options import (
    Assignments,
    Budget,
    Confidence,
    Config,
    EvidenceOption,
    FailOn,
    Force,
    Limit,
    MaxNewTokens,
    Model,
    Output,
    Policy,
    PromptsFile,
    Resume,
    Samples,
    Seed,
    TailSetting,
    Temperature,
    TopK,
    TopP,
    settings_of,
)
from .terminal import command_line, progress
from .verdict import finish

_UNTOLD = "mismatchscope-audit-"


def audit(
    model: Model = None,
    behavior: Annotated[str | None, typer.Option(help="Engine SPEC of the policy that samples.")] = None,
    reference: Annotated[str | None, typer.Option(help="Engine SPEC of the policy that trains.")] = None,
    baseline: Annotated[str | None, typer.Option(help="Engine SPEC to compare the behaviour with.")] = None,
    prompts: PromptsFile = None,
    limit: Limit = None,
    samples: Samples = None,
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    seed: Seed = None,
    policy: Policy = None,
    reference_temperature: Annotated[
        float | None, typer.Option(help="What the trainer divides its logits by.  [the temperature]")
    ] = None,
    evidence: EvidenceOption = None,
    budget: Budget = None,
    repeats: Annotated[bool | None, typer.Option(help="Measure the repeat floors.  [repeats]")] = None,
    confidence: Confidence = None,
    tail: TailSetting = None,
    fail_on: FailOn = None,
    config: Config = None,
    assignments: Assignments = None,
    output: Output = None,
    force: Force = False,
    resume: Resume = False,
) -> None:
    """Sample, score, compare: the whole way, ending with a verdict. Needs no option at all."""
    given = settings_of(locals())
    from ..collection.collector import prepare_output
    from ..config import load_settings
    from ..probes.audit import audit as run_audit

    settings = load_settings(config, given, assignments or [])
    create_missing_environments([settings.behavior, settings.reference, settings.baseline])
    directory = output or _directory(resume=resume)
    prepare_output(directory, force=force, resume=resume, inputs=[settings.prompts, Path(settings.model)])
    with progress() as on_event:
        report = run_audit(settings, directory, command=command_line(), on_event=on_event, resume=resume)
    finish(report, directory)


def _directory(*, resume: bool) -> Path:
    """Where an audit goes that was not told: a new directory, or with --resume the last one of those."""
    if not resume:
        return Path(time.strftime(f"{_UNTOLD}%Y%m%d-%H%M%S"))
    earlier = sorted(Path().glob(f"{_UNTOLD}*"))
    if not earlier:
        raise ConfigError("There is no audit here to go on with.", hint="add -o DIR, the directory of that run")
    return earlier[-1]
