"""Evidence -> the fields of a report that say what causes the gap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..diagnosis.evidence import TokenEvidence
from ..diagnosis.results import diagnose
from ..measures.diagnosis_results import DiagnosedCause


def diagnosis_fields(evidence: TokenEvidence | None, left_out: Sequence[str] = ()) -> dict[str, Any]:
    """By their names; none where there is no evidence. Sequences go by their ids in the trace or the log.

    `left_out` says what contradicts itself, and so is not among the evidence.
    """
    if evidence is None:
        return {}
    causes, answer = diagnose(evidence)
    answer = replace(answer, not_asked=(*answer.not_asked, *left_out))
    return {"diagnosis": [_with_ids(cause, evidence) for cause in causes], "diagnosis_answer": answer}


def _with_ids(cause: DiagnosedCause, evidence: TokenEvidence) -> DiagnosedCause:
    names = evidence.name_S
    if names is None:
        return cause
    return replace(cause, sequences=tuple(int(names[place]) for place in cause.sequences))
