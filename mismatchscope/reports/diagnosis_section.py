"""The diagnosis in words, as every format shows it: what, why with its two numbers, what to do."""

from __future__ import annotations

from collections.abc import Iterator

from ..measures.diagnosis_results import DiagnosedCause, DiagnosisAnswer
from .document import Report
from .logs.section import Line, Section
from .text import count, share

TITLE = "diagnosis"
_TONE = {
    "cause": "bad",
    "set": "caution",
    "unknown": "caution",
    "cannot_tell": "neutral",
    "ordinary_rounding": "good",
    "identical": "good",
}
_HEADER = ("cause", "explains", "right in", "scope", "to prove it")


def diagnosis_section(report: Report, *, short: bool) -> Section:
    """Empty where no diagnosis was made."""
    answer = report.diagnosis_answer
    if answer is None:
        return Section(TITLE)
    found = [cause for cause in report.diagnosis if cause.detector is not None]
    lines: tuple[Line, ...] = (
        Line(_what(answer, found), _TONE[answer.code]),
        Line(answer.why, "neutral", f"{answer.next}{_pages(found)}"),
    )
    if not short:
        lines += tuple(_beside(answer))
    return Section(TITLE, _note(answer), lines, _HEADER, tuple(map(_row, found)) if not short else ())


def _what(answer: DiagnosisAnswer, found: list[DiagnosedCause]) -> str:
    """The answer, and where it is: which sequences, or from which position on."""
    scopes = dict.fromkeys(cause.scope for cause in found if cause.scope is not None)
    if len(scopes) != 1 or not answer.what.endswith("."):
        return answer.what
    return f"{answer.what[:-1]} ({next(iter(scopes))})."


def _pages(found: list[DiagnosedCause]) -> str:
    pages = [cause.docs for cause in found if cause.docs is not None]
    return f" See docs/{pages[0] if len(pages) == 1 else 'causes/'}." if pages else ""


def _note(answer: DiagnosisAnswer) -> str:
    seen = f" of {answer.tokens_seen:,}" if answer.tokens_seen > answer.tokens else ""
    level = {"sampled": "log-probs of sampled tokens", "top-k": "top-k log-probs", "full": "whole distributions"}
    return f"{count(answer.tokens, 'token')}{seen}, {level[answer.level]}"


def _beside(answer: DiagnosisAnswer) -> Iterator[Line]:
    for fact in answer.facts:
        yield Line(f"A fact, and no fault: {fact}")
    for doubted in answer.doubted:
        yield Line(f"Seen, and too often wrong to name a cause by it: {doubted}")
    for left_out in answer.not_asked:
        yield Line(f"Not looked for {left_out}.")


def _row(cause: DiagnosedCause) -> tuple[str, ...]:
    record = cause.confidence
    return (
        cause.title,
        share(cause.explained),
        "" if record is None else f"{record.right} of {record.cases} cases",
        cause.scope or "",
        cause.confirm or "",
    )
