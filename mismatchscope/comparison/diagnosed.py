"""Evidence -> the fields of a report that say what causes the gap."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..diagnosis.evidence import TokenEvidence
from ..diagnosis.results import diagnose
from ..measures.diagnosis_results import DiagnosedCause


def diagnosis_fields(evidence: TokenEvidence | None) -> dict[str, Any]:
    """By their names; none where there is no evidence. Sequences go by their ids in the trace or the log."""
    if evidence is None:
        return {}
    causes, answer = diagnose(evidence)
    return {"diagnosis": [_with_ids(cause, evidence) for cause in causes], "diagnosis_answer": answer}


def _with_ids(cause: DiagnosedCause, evidence: TokenEvidence) -> DiagnosedCause:
    names = evidence.name_S
    if names is None:
        return cause
    return replace(cause, sequences=tuple(int(names[place]) for place in cause.sequences))
