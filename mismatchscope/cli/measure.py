"""The verbs that measure: the audit, and its steps one by one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError
from .frame import command, progress, stdout, verb
from .offer import offer_environments
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
    PathChoice,
    Policy,
    PromptsFile,
    RequiredOutput,
    Resume,
    RoleChoice,
    Samples,
    Seed,
    Tail,
    TailSetting,
    Temperature,
    TopK,
    TopP,
    settings_of,
)
from .outcome import finish

_UNTOLD = "mismatchscope-audit-"


@verb
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
    from ..config import load_settings
    from ..probes.audit import audit as run_audit
    from ..probes.collect import prepare_output

    settings = load_settings(config, given, assignments or [])
    offer_environments([settings.behavior, settings.reference, settings.baseline])
    directory = output or _directory(resume=resume)
    prepare_output(directory, force=force, resume=resume, inputs=[settings.prompts, Path(settings.model)])
    with progress() as on_event:
        report = run_audit(settings, directory, command=command(), on_event=on_event, resume=resume)
    finish(report, directory)


def _directory(*, resume: bool) -> Path:
    """Where an audit goes that was not told: a new directory, or with --resume the last one of those."""
    if not resume:
        return Path(time.strftime(f"{_UNTOLD}%Y%m%d-%H%M%S"))
    earlier = sorted(Path().glob(f"{_UNTOLD}*"))
    if not earlier:
        raise ConfigError("There is no audit here to go on with.", hint="add -o DIR, the directory of that run")
    return earlier[-1]


@verb
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
    from ..config import load_settings
    from ..probes.collect import prepare_output
    from ..probes.single import rollout as run_rollout

    settings = load_settings(None, given, [])
    offer_environments([settings.behavior])
    prepare_output(output, force=force, resume=resume, inputs=[settings.prompts, Path(settings.model)])
    with progress() as on_event:
        manifest = run_rollout(settings, output, on_event=on_event)
    stdout().print(f"{output}: {manifest.counts.sequences} sequences, {manifest.counts.tokens} tokens")


@verb
def score(
    trace: Annotated[Path, typer.Argument(help="The trace whose tokens are forced.")],
    engine: Annotated[str, typer.Option(help="Engine SPEC.")],
    output: RequiredOutput,
    model: Annotated[str, typer.Option(help="Local directory, hub id, demo:dense or demo:moe.")] = "demo:dense",
    role: Annotated[RoleChoice, typer.Option(help="What the trace will stand for.")] = RoleChoice.reference,
    path: Annotated[PathChoice, typer.Option(help="Whole sequences, or token by token.")] = PathChoice.prefill,
    temperature: Annotated[
        float | None, typer.Option(help="What the logits are divided by.  [the trace's temperature]")
    ] = None,
    shuffle_seed: Annotated[int | None, typer.Option(help="Reorder the sequences, and so every batch.")] = None,
    force: Force = False,
    resume: Resume = False,
) -> None:
    """Teacher-force the tokens of a trace through an engine, with the evidence that the trace has."""
    from ..engines.spec import check_spec
    from ..probes.collect import prepare_output
    from ..probes.single import score as run_score

    check_spec(engine)
    offer_environments([engine])
    prepare_output(output, force=force, resume=resume, inputs=[trace, Path(model)])
    with progress() as on_event:
        manifest = run_score(
            trace,
            output,
            engine=engine,
            model=model,
            role=role.value,
            path=path.value,
            temperature=temperature,
            shuffle_seed=shuffle_seed,
            on_event=on_event,
        )
    stdout().print(f"{output}: {manifest.counts.sequences} sequences, {manifest.counts.tokens} tokens")


@verb
def compare(
    behavior: Annotated[Path, typer.Argument(help="Trace of μ, the policy that sampled.")],
    reference: Annotated[Path, typer.Argument(help="Trace of π_old, the policy that trains.")],
    output: RequiredOutput,
    target: Annotated[Path | None, typer.Option(help="Trace of π_θ, the policy being optimised.")] = None,
    baseline: Annotated[Path | None, typer.Option(help="Trace of another engine to compare μ with.")] = None,
    behavior_repeat: Annotated[Path | None, typer.Option(help="μ once more, for its repeat floor.")] = None,
    reference_repeat: Annotated[Path | None, typer.Option(help="π_old once more, likewise.")] = None,
    policy: Policy = None,
    confidence: Confidence = None,
    tail: Tail = False,
    fail_on: FailOn = None,
    force: Force = False,
) -> None:
    """Measure two traces of the same tokens. Needs no engine, no torch and no network."""
    from .. import gate as gates
    from ..probes.collect import prepare_output
    from ..probes.compare import Repeats
    from ..probes.compare import compare as run_compare
    from ..traces.store import Trace

    def opened(path: Path | None) -> Trace | None:
        return None if path is None else Trace.open(path)

    gates.check_without_baseline(fail_on or [])
    traces = [Trace.open(behavior), Trace.open(reference)]
    others = {
        "target": opened(target),
        "baseline": opened(baseline),
        "repeats": Repeats(opened(behavior_repeat), opened(reference_repeat)),
    }
    inputs = [behavior, reference, target, baseline, behavior_repeat, reference_repeat]
    prepare_output(output, force=force, resume=False, inputs=inputs)
    with progress() as on_event:
        report = run_compare(
            *traces,
            **others,
            policy=policy and policy.value,
            confidence=0.95 if confidence is None else confidence,
            tail=tail,
            command=command(),
            on_rows=lambda rows: on_event({"event": "measured", "rows": rows}),
        )
    finish(gates.apply(report, fail_on) if fail_on else report, output)
