"""The whole way: prompts -> rollouts -> scores -> report, in one directory that an interrupted run goes on in.

DIR/
  run.json                                      what was asked for last, for people to read; nothing depends on it
  behavior/  behavior-repeat/                   traces of the policy that samples, and of it once more
  behavior-raw/                                 that policy before temperature, top-k and top-p, where it has any
  reference/ reference-repeat/                  traces of the policy that trains, and of it once more
  baseline/                                     trace of the engine to compare the behaviour with, if any
  logs/                                         what each engine said
  report.json, report.html, report.md, …        the report
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from .. import gate
from ..collection.capabilities import check_capabilities, plan_evidence
from ..collection.collector import Collector, Events
from ..collection.embedded import chosen_prompts
from ..collection.evidence import PlannedEvidence
from ..collection.passes import Pass, plan_audit
from ..comparison.compare_traces import compare
from ..comparison.floors import Repeats
from ..config import AuditSettings
from ..credentials import masked
from ..engines.spec import EngineSpec, parse_spec, with_adapter
from ..environments import interpreter
from ..errors import CapabilityError
from ..records import write_atomic
from ..reports.document import Report
from ..reports.reading_fields import EvidenceChoice
from .version import baseline_pass


def run_audit(settings: AuditSettings, directory: Path, *, command: str, on_event: Events) -> Report:
    """Run the audit that `settings` describe in `directory` and return its report, gates decided.

    Events are those of the engines' workers, each with the `side` it belongs to, and {"event": "measured", "rows"}.
    Raises any of `errors`; what was finished is kept, and the same call goes on from there.
    """
    started = time.monotonic()
    gate.check_without_baseline(settings.gate.fail_on)
    specs = _specs(settings)
    prompts = chosen_prompts(settings)
    planned, passes = _plan(settings, directory, specs, prompts=len(prompts))
    collector = Collector(settings.model, prompts, settings.sampling.samples)
    # What would only be found out after hours of rollouts is found out first.
    for side, spec in specs.items():
        interpreter(spec)
        collector.check(spec, passes[side])
    on_event({"event": "evidence", "side": "behavior", "sentence": planned.sentence})
    asked = masked(settings.model_dump(mode="json", exclude={"gate"}))
    write_atomic(directory / "run.json", json.dumps(asked, indent=1, ensure_ascii=False).encode())

    def of_side(side: str) -> Events:
        return lambda event: on_event(event | {"side": side})

    measured = passes["reference"][0].source
    assert measured is not None  # the reference is a score
    for side, spec in specs.items():
        collector.collect(
            spec,
            passes[side],
            log_path=directory / "logs" / f"{side}.log",
            on_event=of_side(side),
        )
        if not measured.exists():
            raise CapabilityError(
                f"The engine {spec.name} does not show its raw policy under these sampling transforms.",
                hint="--policy processed, or sampling without temperature, top-k and top-p",
            )
    traces = {made.trace.name: collector.trace(made.trace) for side in passes.values() for made in side}
    report = compare(
        collector.trace(measured),
        traces["reference"],
        baseline=traces.get("baseline"),
        repeats=Repeats(traces.get("behavior-repeat"), traces.get("reference-repeat")),
        policy=settings.policy,
        confidence=settings.confidence,
        margin=settings.margin,
        tail=settings.tail,
        max_rejected=settings.max_rejected,
        command=command,
        started=started,
        on_rows=lambda rows: on_event({"event": "measured", "rows": rows}),
    )
    choice = EvidenceChoice(requested=settings.evidence, why=planned.why, restore=planned.restore)
    report = report.model_copy(update={"evidence_choice": choice})
    return gate.apply(report, settings.gate.fail_on) if settings.gate.fail_on else report


def _specs(settings: AuditSettings) -> dict[str, EngineSpec]:
    sides = {"behavior": settings.behavior, "reference": settings.reference, "baseline": settings.baseline}
    given = {side: parse_spec(text) for side, text in sides.items() if text is not None}
    return {side: with_adapter(spec, settings.adapter) for side, spec in given.items()}


def _plan(
    settings: AuditSettings, directory: Path, specs: dict[str, EngineSpec], *, prompts: int
) -> tuple[PlannedEvidence, dict[str, list[Pass]]]:
    """The passes of every side, with evidence that all engines can see. Raises `CapabilityError`, `ConfigError`."""
    traces = len(specs) + (2 if settings.repeats else 0)
    planned = plan_evidence(settings, list(specs.values()), prompts=prompts, traces=traces)
    evidence = planned.evidence
    for side, spec in specs.items():
        path = "prefill" if side == "reference" else None
        check_capabilities(spec, evidence=evidence, path=path, rollout=side == "behavior")
    passes = plan_audit(settings, directory, evidence, specs["behavior"])
    if "baseline" in specs:
        passes["baseline"] = [baseline_pass(passes["behavior"][0], passes["reference"][0], specs["baseline"])]
    return planned, passes
