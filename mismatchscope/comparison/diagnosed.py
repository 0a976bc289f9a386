"""A report with what causes its gap."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ..diagnosis.evidence import TokenEvidence
from ..diagnosis.results import diagnose
from ..errors import unexpected
from ..measures.diagnosis_results import DiagnosedCause
from ..reports.document import NO_DIAGNOSIS, Alarm, Report


def with_diagnosis(
    report: Report, evidence: Callable[[], TokenEvidence | None], left_out: Sequence[str] = ()
) -> Report:
    """The report as it is where there is no evidence. Sequences go by their ids in the trace or the log.

    `left_out` says what contradicts itself, and so is not among the evidence. A diagnosis that fails is an alarm,
    and takes no figure with it: what is measured may be worth a week of GPU time.
    """
    try:
        found = evidence()
        if found is None:
            return report
        causes, answer = diagnose(found)
    except Exception as error:
        return report.model_copy(update={"alarms": [*report.alarms, _failed(error)]})
    answer = replace(answer, not_asked=(*answer.not_asked, *left_out))
    return report.model_copy(
        update={"diagnosis": [_with_ids(cause, found) for cause in causes], "diagnosis_answer": answer}
    )


def _with_ids(cause: DiagnosedCause, evidence: TokenEvidence) -> DiagnosedCause:
    names = evidence.name_S
    if names is None:
        return cause
    return replace(cause, sequences=tuple(int(names[place]) for place in cause.sequences))


def _failed(error: Exception) -> Alarm:
    """Where it failed, and never the error's own message, which may quote a prompt."""
    frames = traceback.extract_tb(error.__traceback__)
    return Alarm(
        code=NO_DIAGNOSIS,
        message=f"The diagnosis failed, and what causes the gap is not said: {unexpected(error)}. "
        "No figure rests on it.",
        evidence={"frames": [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]},
        remedy="report it as a bug, with the frames that report.json has beside this alarm",
        severity="error",
    )
