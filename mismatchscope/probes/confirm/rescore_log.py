"""The responses of a log scored again with the present checkpoint, under the candidates that it has."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from ...comparison.floors import NO_NOISE
from ...comparison.token_evidence import evidence_of
from ...diagnosis.catalogue import experiments
from ...diagnosis.decisions import RESCORE
from ...diagnosis.evidence import Floor
from ...diagnosis.sample import Sample
from ...diagnosis.statistics.size import gap
from ...engines.runtime.resident import ResidentWorker
from ...engines.spec import parse_spec, with_adapter
from ...errors import CapabilityError
from ...records import Sampling
from ...reports.confirmation_fields import ExperimentStep, Proof
from ...traces.reader import Trace
from ...traces.store import is_complete, write_records
from .log_case import LogCase, pair_of
from .reference_changes import Subject, trials
from .scoring import Scorer, longest_of, rescored


class UnderCandidates(NamedTuple):
    """What came of the candidates that the present checkpoint has."""

    step: ExperimentStep
    tried: int = 0
    proof: Proof | None = None


def under_candidates(
    case: LogCase, affected: Trace, others: Trace | None, suspected: Sequence[str]
) -> UnderCandidates:
    """Raises what `score_trace` does with the checkpoint as it is, and `DiskFullError`."""
    pair = pair_of(case, affected, case.model, "model")
    question = experiments()[RESCORE].question
    began = time.monotonic()
    subject = subject_of_log(
        case.engine, case.adapter, case.model, pair.pi.manifest.model.config or {}, longest_of(affected)
    )
    try:
        found = trials(subject, suspected)
    except CapabilityError as error:
        sentence = f"Not possible here: {error.message}"
        return UnderCandidates(ExperimentStep(RESCORE, question, "skipped", None, sentence, list(suspected)))
    tokens, directory = _known(case, affected, pair.pi), case.directory / RESCORE
    with ResidentWorker(case.directory / "engine.log") as worker:
        scorer = Scorer(tokens, subject, directory, case.on_event, worker, case.confidence)
        evidence = evidence_of(pair, NO_NOISE, []).but(floor=_floor(case, others))
        under = rescored(scorer, evidence, found, lambda: time.monotonic() >= case.deadline)
        step = ExperimentStep(RESCORE, question, "unclear", under.result, under.sentence, list(suspected))
        step = replace(step, seconds=time.monotonic() - began)
        if not under.closing:
            return UnderCandidates(step, len(under.found))
        proof = under.proof(scorer, pair.alpha.mean)
    left = [cause for cause in suspected if cause in under.causes] or under.causes
    step = replace(step, status="told", remaining=left, command=scorer.command(under.best))
    return UnderCandidates(step, len(under.found), proof)


def subject_of_log(
    engine: str, adapter: str | None, model: str, config: Mapping[str, object], longest: int
) -> Subject:
    """What the candidates of a log depend on. It says nothing of its sampler: at temperature 1, with nothing cut
    off."""
    return Subject(with_adapter(parse_spec(engine), adapter), model, config, Sampling(), 1.0, longest)


def _known(case: LogCase, affected: Trace, scored: Trace) -> Trace:
    """The responses as a trace that says of which model they should be: what its BOS is, for one."""
    path = case.directory / "affected-of-model"
    if not is_complete(path):
        manifest = affected.manifest.model_copy(update={"model": scored.manifest.model})
        write_records(path, manifest, affected.records())
    return Trace.open(path, verify=False)


def _floor(case: LogCase, others: Trace | None) -> Floor | None:
    """What the present checkpoint is away from the other responses; None where there are none."""
    if others is None:
        return None
    pair = pair_of(case, others, case.model, "model")
    size = gap(Sample.of(evidence_of(pair, NO_NOISE, []).but(floor=Floor(1.0, "third party")))).value
    return None if size is None else Floor(size, "third party")
