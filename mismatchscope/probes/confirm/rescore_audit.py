"""The tokens of an audit scored again on the reference's side, under the candidates that its model has."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace

from ...collection.run_files import RUNS
from ...comparison.context import Context
from ...comparison.floors import NO_NOISE
from ...comparison.pair import Pair, measure_pair
from ...comparison.token_evidence import evidence_of
from ...config import AuditSettings
from ...diagnosis.decisions import RESCORE
from ...diagnosis.evidence import TokenEvidence
from ...engines.runtime.resident import ResidentWorker
from ...engines.spec import parse_spec, with_adapter
from ...errors import CapabilityError
from ...locking import DIRECTORY_LOCK, locked
from ...records import Policy, Sampling
from ..plan import Comparison, Plan, Question, Setting
from ..run_probe import plan_probe, trace_maker
from .case import Case
from .found import Found
from .reference_changes import Subject, check_reference, trials
from .scoring import Scorer, longest_of, rescored


def rescore(case: Case) -> Found:
    """Which candidate closes the gap. Raises what drawing and scoring the tokens does, and `CapabilityError` for a
    reference that computes no candidates, or a policy that has none."""
    settings = case.limited()
    directory = case.directory / RESCORE
    check_reference(subject_of(settings, {}, 0).spec)  # before an engine starts
    shutil.rmtree(directory, ignore_errors=True)  # of a run that was killed
    pair = _pair(case, settings)
    subject = subject_of(settings, pair.pi.manifest.model.config or {}, longest_of(pair.mu))
    with ResidentWorker(directory / "engine.log") as worker:
        scorer = Scorer(pair.mu, subject, directory, case.on_event, worker, settings.confidence)
        under = rescored(scorer, _evidence(case, pair), trials(subject, case.suspected), lambda: case.late)
        if not under.closing:
            return Found(under.result, under.sentence)
        proof = under.proof(scorer, pair.alpha.mean, case.floor)
    return Found(under.result, under.sentence, scorer.command(under.best), proof)


def _pair(case: Case, settings: AuditSettings) -> Pair:
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
    mu, pi = found.traces[drawn], found.traces[reference]
    return measure_pair(mu, pi, Context.of(mu, pi, None, confidence=settings.confidence))


def _is_raw(settings: AuditSettings) -> bool:
    """Whether the audit is of the policy before the sampler's transforms, where it has any."""
    return settings.policy == "raw" and settings.sampling.sampling().transforms


def subject_of(settings: AuditSettings, config: Mapping[str, object], longest: int) -> Subject:
    """What the candidates of an audit depend on. Raises `CapabilityError` for a policy that has none."""
    if settings.policy == "support":
        raise CapabilityError(
            "A policy on the ids that the sampler kept is not scored under candidates.", hint="--policy processed"
        )
    spec, sampling = with_adapter(parse_spec(settings.reference), settings.adapter), settings.sampling.sampling()
    if _is_raw(settings):
        return Subject(spec, settings.model, config, Sampling(), None, longest)
    temperature = settings.reference_temperature or sampling.temperature or 1.0
    return Subject(spec, settings.model, config, sampling, temperature, longest)


def _evidence(case: Case, pair: Pair) -> TokenEvidence:
    """Sampled tokens alone, with the floor of the audit where that was measured."""
    evidence = evidence_of(pair, NO_NOISE, [])
    floor = case.rounding if case.rounding is not None and case.rounding.measured else evidence.floor
    return replace(evidence, top=None, full=None, floor=floor)
