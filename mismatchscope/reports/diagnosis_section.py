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
_NEVER = "not from this evidence"
_HEADER = ("cause", "explains", "right in", "scope", "to prove it")


def diagnosis_section(report: Report, *, short: bool, whole: bool = False) -> Section:
    """Empty where no diagnosis was made. What was not looked for is left out where nothing is wrong, unless the
    `whole` of it is wanted."""
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
        left_out = answer.not_asked if whole else _of_this_report(answer)
        lines += tuple(Line(_sentence(each)) for each in left_out)
    return Section(TITLE, _note(answer), lines, _HEADER, tuple(map(_row, found)) if not short else ())


def _what(answer: DiagnosisAnswer, found: list[DiagnosedCause]) -> str:
    """The answer, and where it is: which sequences, or from which position on."""
    scopes = dict.fromkeys(cause.scope for cause in found if cause.scope is not None)
    if len(scopes) != 1 or not answer.what.endswith("."):
        return answer.what
    scope = next(iter(scopes))
    if answer.what.endswith(")."):  # it says how often the detector was right
        return f"{answer.what[:-2]}; {scope})."
    return f"{answer.what[:-1]} ({scope})."


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


def _of_this_report(answer: DiagnosisAnswer) -> Iterator[str]:
    """What more evidence would have told, where something is wrong; not what no such evidence tells."""
    if _TONE[answer.code] != "good":
        yield from (each for each in answer.not_asked if not each.startswith(_NEVER))


def _sentence(left_out: str) -> str:
    sentence = left_out if left_out.startswith((_NEVER, "looked for")) else f"not looked for {left_out}"
    return f"{sentence[:1].upper()}{sentence[1:]}."


def _row(cause: DiagnosedCause) -> tuple[str, ...]:
    record = cause.confidence
    return (
        cause.title,
        share(cause.explained),
        "" if record is None else f"{record.right} of {record.cases} cases",
        cause.scope or "",
        cause.confirm or "",
    )
