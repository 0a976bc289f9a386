"""The tokens of an audit scored again on the reference's side, under the candidates that its model has."""

from __future__ import annotations

import shutil
from dataclasses import replace

from ...collection.run_files import RUNS
from ...comparison.context import Context
from ...comparison.floors import NO_NOISE
from ...comparison.pair import measure_pair
from ...comparison.token_evidence import evidence_of
from ...config import AuditSettings
from ...diagnosis.decisions import RESCORE
from ...diagnosis.evidence import TokenEvidence
from ...engines.runtime.resident import ResidentWorker
from ...engines.spec import EngineSpec, parse_spec, with_adapter
from ...errors import CapabilityError
from ...locking import DIRECTORY_LOCK, locked
from ...records import Policy, Sampling
from ...reports.confirmation_fields import Proof
from ...traces.reader import Trace
from ..plan import Comparison, Plan, Question, Setting
from ..run_probe import plan_probe, trace_maker
from .candidates import Subject, trials
from .case import Case
from .found import NONE, UNCLEAR, Found
from .scoring import Scorer, command_of, longest_of, rescored


def rescore(case: Case) -> Found:
    """Which candidate closes the gap. Raises what drawing and scoring the tokens does, and `CapabilityError` for a
    reference that computes no candidates."""
    settings = case.limited()
    directory = case.directory / RESCORE
    if settings.policy == "support":
        raise CapabilityError(
            "A policy on the ids that the sampler kept is not scored under candidates.", hint="--policy processed"
        )
    trials(_subject(settings, {}, 0))  # refused before an engine starts
    shutil.rmtree(directory, ignore_errors=True)  # of a run that was killed
    drawn, reference = _pair(case, settings)
    config = reference.manifest.model.config or {}
    subject = _subject(settings, config, longest_of(drawn))
    evidence = _evidence(case, settings, drawn, reference)
    with ResidentWorker(directory / "engine.log") as worker:
        scorer = Scorer(
            drawn,
            subject.spec,
            subject.model,
            settings.adapter,
            subject.temperature,
            directory,
            case.on_event,
            worker,
            settings.confidence,
        )
        result = rescored(scorer, evidence, trials(subject, case.suspected), lambda: case.late)
        if not result.closing:
            told = bool(result.found) and not result.not_tried
            return Found(NONE if told else UNCLEAR, result.sentence, case.command_of_all)
        best = result.closing[0].candidate
        change = result.changes[best]
        context = Context.of(drawn, reference, None, confidence=settings.confidence)
        before, after = measure_pair(drawn, reference, context).alpha.mean, scorer.mean_tv(change)
    proof = Proof(f"{best} on the reference's side", before, after, floor=case.floor)
    return Found(" or ".join(result.causes), result.sentence, command_of(scorer, change), proof)


def _pair(case: Case, settings: AuditSettings) -> tuple[Trace, Trace]:
    """The tokens as they were drawn, and the reference's scores of them: those that the other experiments use."""
    planned = plan_probe("repeat", settings)
    question: Question = planned.question
    policy: Policy = "raw" if _is_raw(settings) else "processed"
    drawn = Setting("as drawn", "behavior", question.behavior, "rollout", drawn=True, policy=policy)
    reference = Setting("trainer", "reference", question.reference, "prefill", policy=policy)
    store, directory = case.directory / RUNS, case.directory / RESCORE
    for each in (store, directory):
        each.mkdir(parents=True, exist_ok=True)
    plan = Plan("what the reference computes", [Comparison(reference, drawn)])
    with locked(store / DIRECTORY_LOCK, str(store)):
        maker = trace_maker(planned, settings, directory, store, case.on_event, None)
        found = maker.make(plan)
    for error in found.errors.values():
        raise error
    for why in found.left_out.values():
        raise CapabilityError(f"The tokens cannot be scored again: {why}.")
    return found.traces[drawn], found.traces[reference]


def _is_raw(settings: AuditSettings) -> bool:
    """Whether the audit is of the policy before the sampler's transforms, where it has any."""
    return settings.policy == "raw" and settings.sampling.sampling().transforms


def _spec(settings: AuditSettings) -> EngineSpec:
    return with_adapter(parse_spec(settings.reference), settings.adapter)


def _subject(settings: AuditSettings, config: dict[str, object], longest: int) -> Subject:
    sampling = settings.sampling.sampling()
    if _is_raw(settings):
        return Subject(_spec(settings), settings.model, config, Sampling(), None, longest, settings.adapter)
    temperature = settings.reference_temperature or sampling.temperature or 1.0
    return Subject(_spec(settings), settings.model, config, sampling, temperature, longest, settings.adapter)


def _evidence(case: Case, settings: AuditSettings, drawn: Trace, reference: Trace) -> TokenEvidence:
    """Sampled tokens alone, with the floor of the audit where that was measured."""
    context = Context.of(drawn, reference, None, confidence=settings.confidence)
    evidence = evidence_of(measure_pair(drawn, reference, context), NO_NOISE, [])
    floor = case.rounding if case.rounding is not None and case.rounding.measured else evidence.floor
    return replace(evidence, top=None, full=None, floor=floor)
