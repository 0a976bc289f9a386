"""`compare`: measure two traces of the same tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..records import Policy
from .options import Force, Overrides, RequiredOutput, takes_settings
from .report_output import write_and_exit
from .terminal import command_line, progress


@takes_settings("confidence", "margin", "max_rejected", "tail", "gate.fail_on")
def command(
    behavior: Annotated[Path, typer.Argument(help="Trace of μ, the policy that sampled.")],
    reference: Annotated[Path, typer.Argument(help="Trace of π_old, the policy that trains.")],
    output: RequiredOutput,
    *,
    target: Annotated[Path | None, typer.Option(help="Trace of π_θ, the policy being optimised.")] = None,
    baseline: Annotated[Path | None, typer.Option(help="Trace of another engine to compare μ with.")] = None,
    behavior_repeat: Annotated[Path | None, typer.Option(help="μ once more, for its repeat floor.")] = None,
    reference_repeat: Annotated[Path | None, typer.Option(help="π_old once more, likewise.")] = None,
    policy: Annotated[Policy | None, typer.Option(help="Which μ to measure.  \\[the trace's]")] = None,
    overrides: Overrides,
    force: Force = False,
) -> None:
    """Measure two traces of the same tokens. Needs no engine, no torch and no network."""
    from .. import gate
    from ..collection.output import output_directory
    from ..comparison.compare_traces import compare
    from ..comparison.floors import Repeats
    from ..config import load_settings
    from ..traces.reader import Trace

    def opened(path: Path | None) -> Trace | None:
        return None if path is None else Trace.open(path)

    settings = load_settings(None, overrides, [])
    gate.check_without_baseline(settings.gate.fail_on)
    mu, pi = Trace.open(behavior), Trace.open(reference)
    theta, old = opened(target), opened(baseline)
    repeats = Repeats(opened(behavior_repeat), opened(reference_repeat))
    inputs = [behavior, reference, target, baseline, behavior_repeat, reference_repeat]
    with output_directory(output, force=force, inputs=inputs):
        with progress() as on_event:
            report = compare(
                mu,
                pi,
                target=theta,
                baseline=old,
                repeats=repeats,
                policy=policy,
                confidence=settings.confidence,
                margin=settings.margin,
                tail=settings.tail,
                max_rejected=settings.max_rejected,
                command=command_line(),
                on_rows=lambda rows: on_event({"event": "measured", "rows": rows}),
            )
        write_and_exit(gate.apply(report, settings.gate.fail_on) if settings.gate.fail_on else report, output)
