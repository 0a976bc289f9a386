"""The whole way: prompts -> rollouts -> scores -> report, in one directory that an interrupted run goes on in.

DIR/
  run.json                                      what was asked for last, and the traces that belong to it
  behavior/  behavior-repeat/                   traces of the policy that samples, and of it once more
  behavior-raw/                                 that policy before temperature, top-k and top-p, where it has any
  reference/ reference-repeat/                  traces of the policy that trains, and of it once more
  baseline/                                     trace of the engine to compare the behaviour with, if any
  logs/                                         what each engine said
  report.json, report.html, report.md, …        the report
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from .. import gate
from ..collection.capabilities import check_capabilities, plan_evidence
from ..collection.collector import Collector, Events
from ..collection.embedded import chosen_prompts
from ..collection.evidence import PlannedEvidence
from ..collection.passes import Pass, plan_audit
from ..collection.remade import note_remade
from ..collection.run_files import LOGS
from ..collection.run_json import check_run_json, write_run_json
from ..comparison.compare_traces import compare
from ..comparison.floors import Repeats
from ..config import AuditSettings
from ..engines.spec import EngineSpec, parse_spec, with_adapter
from ..environments import interpreter
from ..errors import CapabilityError
from ..file_errors import file_errors
from ..prompts.files import write_prompts
from ..prompts.rows import Prompt
from ..reports.document import Report
from ..reports.reading_fields import EvidenceChoice
from ..traces.schema import Manifest
from .baseline import baseline_pass


def run_audit(
    settings: AuditSettings,
    directory: Path,
    *,
    command: str,
    on_event: Events,
    prompts: Sequence[Prompt] | None = None,
) -> Report:
    """Run the audit that `settings` describe in `directory` and return its report, gates decided.

    `prompts` are given where `settings.prompts` is a file that does not have them yet; they are written to it.
    Events are those of the engines' workers, each with the `side` it belongs to, and {"event": "measured", "rows"}.
    Raises any of `errors`; what was finished is kept, and the same call goes on from there.
    """
    started = time.monotonic()
    gate.check_without_baseline(settings.gate.fail_on)
    specs = _specs(settings)
    given, prompts = prompts, chosen_prompts(settings) if prompts is None else prompts[: settings.limit]
    planned, passes = _plan(settings, directory, specs, prompts=len(prompts))
    collector = Collector(settings.model, prompts, settings.sampling.samples)
    # What would only be found out after hours of rollouts is found out first.
    manifests: dict[Path, Manifest] = {}
    for side, spec in specs.items():
        interpreter(spec)
        manifests |= {pass_.trace: made for pass_, made in collector.check(spec, passes[side]).items()}
    damaged = check_run_json(directory, manifests)
    on_event({"event": "evidence", "side": "behavior", "sentence": planned.sentence})
    with file_errors("The audit cannot be begun", hint="choose another -o"):
        if damaged is not None:
            note_remade(damaged, directory / LOGS / "behavior.log", on_event)
        if given is not None and settings.prompts is not None:
            write_prompts(settings.prompts, given)
        write_run_json(directory, settings, manifests)

    def of_side(side: str) -> Events:
        return lambda event: on_event(event | {"side": side})

    measured = passes["reference"][0].source
    assert measured is not None  # the reference is a score
    for side, spec in specs.items():
        collector.collect(
            spec,
            passes[side],
            log_path=directory / LOGS / f"{side}.log",
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
