"""The experiments of a diagnosis in words, as every format shows them, and what they leave of the causes."""

from __future__ import annotations

from .confirmation_fields import Confirmation, ExperimentStep
from .document import Report
from .logs.section import Line, Section
from .text import count, duration

TITLE = "experiments"
_MARKS = {"told": "", "unclear": "no clear result", "skipped": "skipped"}
_LISTED = 4


def confirmation_section(report: Report) -> Section:
    """Empty where no experiment was asked for."""
    found = report.confirmation
    if found is None:
        return Section(TITLE)
    lines = [Line(f"{step.question} {step.sentence}", *_command(step)) for step in found.steps]
    if found.withdrawn:
        lines.append(Line("They rule out what the data had named.", "caution"))
    lines.append(Line(found.sentence, _tone(found)))
    rows = tuple(
        (
            step.experiment,
            step.result or _MARKS[step.status],
            _listed(step.remaining),
            "" if step.seconds is None else duration(step.seconds),
        )
        for step in found.steps
    )
    return Section(
        TITLE, "each rules causes out", tuple(lines), ("experiment", "result", "causes that are left", "took"), rows
    )


def _command(step: ExperimentStep) -> tuple[str, str | None]:
    return ("neutral" if step.status == "told" else "caution", step.command)


def _tone(found: Confirmation) -> str:
    return "good" if found.proof is not None or found.cause is not None else "caution"


def _listed(causes: list[str]) -> str:
    if len(causes) <= _LISTED:
        return ", ".join(causes) or "none"
    return f"{count(len(causes), 'cause')}: {', '.join(causes[:_LISTED])} …"
