"""A probe from its question to its report: draw tokens once, compute them under every setting, hold them together.

DIR/
  run.json                 what was asked for
  runs/KEY/                the traces, named by what was asked for, so that the same is never made twice
  logs/start-N.log         what each engine said
  report.json, …           the report: of the pair farthest apart, and `probe` with every cell
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .. import gate
from ..collection.capabilities import check_capabilities, plan_evidence
from ..collection.collector import Collector, Events
from ..collection.embedded import chosen_prompts, resolve_model
from ..collection.evidence import PlannedEvidence
from ..collection.passes import Pass
from ..collection.run_files import LOGS, RUNS
from ..collection.run_json import write_run_json
from ..comparison.context import Context
from ..comparison.pair import Pair
from ..comparison.pair_report import counts_of, report_of_pair
from ..config import AuditSettings, parse_evidence
from ..engines.spec import EngineSpec, parse_spec, with_adapter
from ..environments import interpreter
from ..errors import ConfigError, MismatchScopeError, NotComparableError
from ..file_errors import file_errors
from ..locking import DIRECTORY_LOCK, locked
from ..prompts.rows import Prompt
from ..reports import pair_fields
from ..reports.document import Finding, Report
from ..reports.reading_fields import EvidenceChoice
from ..reports.text import count
from .cells import MeasuredCell, measure_cells
from .completions import completions_of
from .conclusions import computation_of, size_of
from .plan import Findings, Plan, Probe, Question
from .plan_traces import make_traces
from .registry import find_probe
from .run_times import TimeEstimate
from .shown_bytes import check_room
from .side_by_side import DividedPlan, divided
from .time_limit import TimeLimit
from .traces import ProbeTraces, TraceMaker


@dataclass(frozen=True, eq=False)
class PlannedProbe:
    """All that is decided before an engine starts."""

    name: str
    probe: Probe
    question: Question
    plan: Plan
    prompts: Sequence[Prompt]
    evidence: PlannedEvidence
    side_by_side: bool
    """Whether what fits one process is compared there: where whole distributions are not stored, and nobody asked
    for less."""

    def divided(self, plan: Plan) -> DividedPlan:
        """This plan, or one that follows from what was found."""
        return divided(plan, side_by_side=self.side_by_side)

    @property
    def specs(self) -> list[EngineSpec]:
        """Of every engine that is started, each once: the behaviour's, which draws the tokens, first."""
        specs = (self.question.behavior, *(setting.spec for setting in self.plan.settings))
        return list({str(spec): spec for spec in specs}.values())


def plan_probe(name: str, settings: AuditSettings, values: tuple[str, ...] = ()) -> PlannedProbe:
    """What the probe of this name would do. `values` are those to try, by default the settings', else its own.

    Raises any of `errors` that can be known before an engine starts.
    """
    gate.check_without_baseline(settings.gate.fail_on)
    probe, prompts = find_probe(name), chosen_prompts(settings)
    behavior, reference = (
        with_adapter(parse_spec(text), settings.adapter) for text in (settings.behavior, settings.reference)
    )
    question = Question(
        behavior,
        reference,
        len(prompts) * settings.sampling.samples,
        values or tuple(settings.probe.values),
        settings.adapter,
        settings.sampling.sampling(),
        settings.reference_temperature,
        resolve_model(settings.model),
        settings.probe.changed_options,
    )
    if question.changes and not probe.takes_changes:
        raise ConfigError(f"The probe {name} takes no changes by name.", hint="[probe] values, or probe attribute")
    plan = probe.plan(question)
    check_room(plan, question.model, prompts, settings)
    engines = list({str(each.spec): each.spec for each in plan.settings}.values())
    scores = sum(setting.path != "rollout" for setting in plan.settings)
    planned = plan_evidence(settings, [behavior, *engines], prompts=len(prompts), traces=1 + scores + plan.more)
    check_capabilities(behavior, evidence=planned.evidence, path=None, rollout=True)
    auto = parse_evidence(settings.evidence)[0] == "auto"
    side_by_side = auto and planned.evidence.level != "full" and probe.examine is None
    return PlannedProbe(name, probe, question, plan, prompts, planned, side_by_side)


def evidence_sentences(planned: PlannedProbe) -> Iterator[str]:
    """What is seen of distributions, for a person who is about to wait."""
    yield planned.evidence.sentence
    if able := len(planned.divided(planned.plan).side_by_side):
        yield (
            f"{able} of {count(len(planned.plan.comparisons), 'comparison')} side by side in one process: whole "
            "distributions are compared there, and none is stored"
        )


def run_probe(
    planned: PlannedProbe,
    settings: AuditSettings,
    directory: Path,
    *,
    store: Path | None = None,
    command: str,
    on_event: Events,
) -> Report:
    """Run what was planned and return its report, gates decided.

    `store` is a directory of traces that probes share. Events are those of the engines' workers. Raises any of
    `errors`; what was finished is kept, and the same call goes on from there. What a setting does to an engine is
    its cell's matter, and an error only where no setting could be measured.
    """
    started = time.monotonic()
    interpreter(planned.question.behavior)
    for sentence in evidence_sentences(planned):
        on_event({"event": "evidence", "side": planned.name, "sentence": sentence})
    store = store or directory / RUNS
    with file_errors("The probe cannot be begun", hint="choose another -o or --runs"):
        write_run_json(directory, settings, {})
        store.mkdir(parents=True, exist_ok=True)
    with locked(store / DIRECTORY_LOCK, str(store)):
        limit = TimeLimit.of(planned.probe, planned.question, settings)
        maker = trace_maker(planned, settings, directory, store, on_event, limit)
        found = _carried_out(planned, settings, maker, directory / LOGS)
    shown, pair = _shown(found, first=planned.plan.the_gap)
    probe = pair_fields.Probe(
        name=planned.name,
        factor=planned.plan.factor,
        cells=[each.cell for each in found.cells],
        completions=found.completions,
        conclusion=found.findings.conclusion,
        effects=found.findings.effects,
        lengths=found.findings.lengths,
        transforms=found.findings.transforms,
        sampler_check=found.findings.sampler_check,
        routing=found.findings.routing,
        interactions=found.findings.interactions,
        design=found.findings.design,
        internals=found.findings.internals,
        pair_shown=f"{shown.setting} against {shown.against}, {computation_of(shown)}",
    )
    finding = Finding(code="probe", sentence=probe.conclusion[0].sentence)
    counts, evidence = counts_of(pair, settings.max_rejected), planned.evidence
    choice = EvidenceChoice(requested=settings.evidence, why=evidence.why, restore=evidence.restore)
    if shown.side_by_side:
        choice = replace(choice, why=f"{choice.why}; compared side by side, not stored", restore=None)
    report = report_of_pair(pair, finding, counts, command=command, started=started)
    report = report.model_copy(update={"probe": probe, "evidence_choice": choice})
    if settings.gate.fail_on:
        return gate.apply(report, settings.gate.fail_on)
    return report if probe.complete else report.model_copy(update={"verdict": "inconclusive"})


def estimate_time(planned: PlannedProbe, settings: AuditSettings, store: Path) -> TimeEstimate:
    """How long the probe will take, as far as runs in `store` tell. Raises `ConfigError` where that is more than
    the settings allow. Starts and writes nothing."""
    maker = trace_maker(planned, settings, store.parent, store, lambda event: None, None)
    limit, parts = TimeLimit.of(planned.probe, planned.question, settings), planned.divided(planned.plan)
    if limit is not None:
        limit.check(maker, parts.rest, parts.side_by_side)
    return maker.estimate(parts.rest, parts.side_by_side)


def trace_maker(
    planned: PlannedProbe,
    settings: AuditSettings,
    directory: Path,
    store: Path,
    on_event: Events,
    limit: TimeLimit | None,
) -> TraceMaker:
    """What makes the traces of a probe, those that `store` has not."""
    return TraceMaker(
        Collector(settings.model, planned.prompts, settings.sampling.samples),
        planned.question.behavior,
        Pass(store / "tokens", "behavior", planned.evidence.evidence, "processed", settings.sampling.sampling()),
        reference_temperature=settings.reference_temperature,
        store=store,
        logs=directory / LOGS,
        on_event=on_event,
        before_start=None if limit is None else limit.check,
    )


@dataclass(frozen=True, eq=False)
class _Found:
    cells: list[MeasuredCell]
    completions: list[pair_fields.Completions]
    findings: Findings
    errors: list[MismatchScopeError]


def _carried_out(planned: PlannedProbe, settings: AuditSettings, maker: TraceMaker, logs: Path) -> _Found:
    """Every plan, the first and those that follow from it."""
    cells: list[MeasuredCell] = []
    errors: list[MismatchScopeError] = []

    def carry_out(plan: Plan) -> tuple[list[MeasuredCell], ProbeTraces]:
        traces = make_traces(maker, plan, planned.divided(plan), logs)
        context = Context.of(traces.source, traces.source, None, confidence=settings.confidence, tail=settings.tail)
        measured = measure_cells(plan, traces, context)
        cells.extend(measured)
        errors.extend([*traces.errors.values(), *traces.not_shown.values()])
        return measured, traces

    first, traces = carry_out(planned.plan)
    made = (completions_of(group, traces) for group in planned.plan.greedy)
    completions = [found for found in made if found is not None]
    if planned.probe.examine is not None:
        return _Found(cells, completions, planned.probe.examine(first, traces), errors)
    if planned.probe.search is None:
        assert planned.probe.conclude is not None
        conclusion = planned.probe.conclude([each.cell for each in first], completions)
        return _Found(cells, completions, Findings(conclusion), errors)
    search = planned.probe.search(planned.question, first)
    try:
        plan = next(search)
        while True:
            plan = search.send(carry_out(plan)[0])
    except StopIteration as end:
        return _Found(cells, completions, end.value, errors)


def _shown(found: _Found, *, first: bool) -> tuple[pair_fields.ProbeCell, Pair]:
    """The cell that the rest of the report is of: that of largest mean TV, or the `first` one that was measured.

    Where none was measured, raises why the first setting failed, or `NotComparableError`.
    """
    measured = [(each.cell, each.pair) for each in found.cells if each.pair is not None]
    if measured:
        return measured[0] if first else max(measured, key=lambda entry: size_of(entry[1].summary))
    for error in found.errors:
        raise error
    reasons = dict.fromkeys(each.cell.reason for each in found.cells if each.cell.reason is not None)
    raise NotComparableError(f"No two settings could be compared: {'; '.join(reasons)}")
