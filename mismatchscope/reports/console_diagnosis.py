"""The whole diagnosis on a terminal: the answer, each cause with what speaks for it, and the experiments."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..foreign_text import printable
from ..measures.diagnosis_results import DiagnosedCause, DiagnosisEvidence
from .confirmation_section import confirmation_section
from .console_log import show_sections
from .diagnosis_section import diagnosis_section
from .document import Report
from .text import estimate, number, share

_SMALL = 1e-6
"""No chance is told more exactly than that: it rests on what noise is taken to be."""


def show_diagnosis(report: Report, console: Console) -> None:
    """Print all that is known of the causes."""
    show_sections([diagnosis_section(report, short=False, whole=True)._replace(rows=())], console)
    for place, cause in enumerate((each for each in report.diagnosis if each.detector is not None), start=1):
        console.print()
        console.print(Text.assemble((f"{place}  {printable(cause.title)}", "bold"), (_among(cause), "dim")))
        grid = Table.grid(padding=(0, 2, 0, 0))
        for label, text in _details(cause):
            grid.add_row(Text(f"   {label}", "dim"), Text(printable(text)))
        console.print(grid)
    experiments = confirmation_section(report)
    show_sections([experiments] if experiments.lines else [], console)


def _among(cause: DiagnosedCause) -> str:
    return (
        "" if cause.alternatives == 1 else f"  one of {cause.alternatives} that this evidence does not tell apart"
    )


def _details(cause: DiagnosedCause) -> Iterator[tuple[str, str]]:
    for evidence in cause.evidence:
        yield "evidence", _told(evidence)
    if cause.explained is not None:
        yield "explains", f"{share(cause.explained)} of Σ|Δ log p|"
    if cause.scope is not None:
        yield "where", cause.scope
    if (record := cause.confidence) is not None:
        yield "right", f"in {record.right} of {record.cases} planted cases in which this detector spoke"
    else:
        yield "right", "not known: the benchmark has no case in which this detector spoke at this evidence"
    if cause.fix is not None:
        yield "mend", cause.fix
    if cause.confirm is not None:
        yield "prove", cause.confirm
    if cause.docs is not None:
        yield "read", f"docs/{cause.docs}"


def _told(evidence: DiagnosisEvidence) -> str:
    value = estimate(evidence.value, evidence.low, evidence.high)
    null = "" if evidence.null is None else f", {number(evidence.null)} without the fault"
    return f"{evidence.statistic}: {value}{null}{_chance(evidence.false_alarm)}"


def _chance(false_alarm: float | None) -> str:
    if false_alarm is None:
        return ""
    return f"; so far off by chance: {f'below {_SMALL:g}' if false_alarm < _SMALL else number(false_alarm)}"
