"""`compare`: measure two traces of the same tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Confidence, FailOn, Force, Policy, RequiredOutput, Tail
from .terminal import command_line, progress
from .verdict import finish


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
    from ..collection.collector import prepare_output
    from ..comparison.compare_traces import compare as run_compare
    from ..comparison.floors import Repeats
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
            command=command_line(),
            on_rows=lambda rows: on_event({"event": "measured", "rows": rows}),
        )
    finish(gates.apply(report, fail_on) if fail_on else report, output)
