"""The responses of a log scored again with the present checkpoint, under the candidates that it has."""

from __future__ import annotations

import time
from collections.abc import Sequence
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
from .candidates import Subject, trials
from .found import NONE
from .log_case import LogCase, pair_of
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
    with ResidentWorker(case.directory / "engine.log") as worker:
        scorer = Scorer(
            _known(case, affected, pair.pi),
            with_adapter(parse_spec(case.engine), case.adapter),
            case.model,
            case.adapter,
            1.0,
            case.directory / RESCORE,
            case.on_event,
            worker,
            case.confidence,
        )
        subject = Subject(
            scorer.spec,
            case.model,
            pair.pi.manifest.model.config or {},
            Sampling(),
            scorer.temperature,
            longest_of(affected),
            case.adapter,
        )
        try:
            found = trials(subject, suspected)
        except CapabilityError as error:
            sentence = f"Not possible here: {error.message}"
            return UnderCandidates(ExperimentStep(RESCORE, question, "skipped", None, sentence, list(suspected)))
        evidence = evidence_of(pair, NO_NOISE, []).but(floor=_floor(case, others))
        result = rescored(scorer, evidence, found, lambda: time.monotonic() >= case.deadline)
        step = ExperimentStep(RESCORE, question, "unclear", NONE, result.sentence, list(suspected))
        step = replace(step, seconds=time.monotonic() - began)
        if not result.closing:
            return UnderCandidates(step, len(result.found))
        best = result.closing[0].candidate
        change = result.changes[best]
        proof = Proof(f"{best} on the reference's side", pair.alpha.mean, scorer.mean_tv(change))
        left = [cause for cause in suspected if cause in result.causes] or result.causes
        step = replace(step, status="told", result=" or ".join(result.causes), remaining=left)
        return UnderCandidates(step, len(result.found), proof)


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
