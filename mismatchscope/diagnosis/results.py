"""An answer as the values and sentences that a report holds."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..measures.diagnosis_results import (
    DetectorRecord,
    DiagnosedCause,
    DiagnosisAnswer,
    DiagnosisEvidence,
    DiagnosisPicture,
)
from ..measures.results import Interval
from .answer import Answer, Named, answer_of
from .catalogue import ROUNDING, UNKNOWN, causes, experiments
from .detector import Finding, Need, detectors, not_shown
from .evidence import TokenEvidence
from .peeling import FEWEST_TOKENS, peel
from .statistics.stat import Stat
from .words import number

_SOURCE = {
    "repeat": "of a sound repeat of this pair",
    "third party": "against a float32 third party",
    "prior": "that such a pair usually has; up to {most} rounding is not excluded",
    "quiet part": "that the quieter half of the responses has; up to {most} rounding is not excluded",
}


def diagnose(evidence: TokenEvidence) -> tuple[list[DiagnosedCause], DiagnosisAnswer]:
    """The causes that fit, most likely first, and the answer in three lines.

    Too little evidence is an answer, and so is evidence that does not say.
    """
    answer = answer_of(peel(evidence))
    return diagnosed(answer), summary(answer)


def diagnosed(answer: Answer) -> list[DiagnosedCause]:
    """One entry a cause; one of "ordinary_rounding" or "unknown" where none is named."""
    found = [
        _cause(named, cause, number)
        for number, named in sorted(enumerate(answer.named), key=lambda pair: -pair[1].share)
        for cause in named.causes
    ]
    if found:
        return found
    if answer.code == "ordinary_rounding":
        return [_unnamed(answer, ROUNDING, "ordinary rounding")]
    return [_unnamed(answer, UNKNOWN, "not rounding, and not named")] if answer.code == "unknown" else []


def _cause(named: Named, code: str, number: int) -> DiagnosedCause:
    finding, cause = named.finding, causes()[code]
    experiment = experiments()[cause.experiment]
    record = None
    if named.record is not None:
        record = DetectorRecord(named.record.right, named.record.cases, _interval(named.record.precision, "wilson"))
    return DiagnosedCause(
        cause=code,
        title=cause.title,
        confidence=record,
        evidence=(_evidence(finding),),
        scope=finding.scope,
        sequences=finding.sequences,
        confirm=experiment.how,
        fix=cause.fix,
        finding=number,
        alternatives=len(named.causes),
        detector=finding.detector,
        why=finding.why,
        explained=named.share,
        docs=f"causes/{code}.md",
    )


def _evidence(finding: Finding) -> DiagnosisEvidence:
    value = finding.value
    return DiagnosisEvidence(
        finding.statistic, value.value, value.low, value.high, value.n, finding.null, finding.false_alarm
    )


def _unnamed(answer: Answer, code: str, title: str) -> DiagnosedCause:
    size = answer.size
    evidence = DiagnosisEvidence("R, in floors", size.value, size.low, size.high, size.n, 1.0, None)
    return DiagnosedCause(
        cause=code,
        title=title,
        confidence=None,
        evidence=(evidence,),
        scope=None,
        sequences=(),
        confirm=None,
        fix=None,
        finding=0,
        alternatives=1,
        detector=None,
        why=_size(answer),
        explained=None,
    )


def summary(answer: Answer) -> DiagnosisAnswer:
    """The three lines, and what they rest on."""
    evidence, floor = answer.peeled.sample.evidence, answer.peeled.sample.floor
    what, why, following = _lines(answer)
    return DiagnosisAnswer(
        code=answer.code,
        what=what,
        why=why,
        next=following,
        size=_interval(answer.size, "clustered"),
        left=None if answer.left is None else _interval(answer.left, "clustered"),
        floor=floor.value,
        floor_source=floor.source,
        level=evidence.level,
        tokens=evidence.tokens,
        tokens_seen=evidence.tokens_seen or evidence.tokens,
        sequences=evidence.sequences,
        facts=tuple(fact.why for fact in answer.peeled.facts),
        doubted=tuple(finding.why for finding in answer.doubted),
        not_asked=tuple(_not_asked(answer)),
        pictures=tuple(
            _picture(named.finding, number) for number, named in enumerate(answer.named) if named.finding.picture
        ),
    )


def _lines(answer: Answer) -> tuple[str, str, str]:
    """What, why, and what to do."""
    if answer.named:
        whats = [_either(named) for named in answer.named]
        reasons = [named.finding.why for named in answer.named]
        return " And ".join(whats), " ".join([*reasons, *_rest(answer)]), " ".join(_steps(answer))
    if answer.code == "identical":
        return "No token differs.", "Both sides have the same bits.", "Nothing is to be done."
    if answer.code == "cannot_tell":
        return "Cannot tell whether this is more than rounding.", _size(answer), _more(answer)
    if answer.code == "ordinary_rounding":
        return "Ordinary rounding.", _size(answer), "Nothing, or float32 or shared kernels, to make it smaller."
    return "Not rounding; the cause cannot be told from this evidence.", _size(answer), _first_experiments()


def _either(named: Named) -> str:
    titles = [causes()[each].title for each in named.causes]
    what = titles[0] if len(titles) == 1 else f"{', '.join(titles[:-1])} or {titles[-1]}"
    record = named.record
    confidence = (
        "" if record is None else f" ({named.detector} was right in {record.right} of {record.cases} planted cases)"
    )
    return f"{what[0].upper()}{what[1:]}{confidence}."


def _steps(answer: Answer) -> Iterable[str]:
    for named in answer.named:
        if len(named.causes) == 1:
            fix = causes()[named.causes[0]].fix
            yield f"{fix[0].upper()}{fix[1:]}."
        else:
            how = experiments()[named.experiment].how
            yield f"To tell them apart, {how}."


def _rest(answer: Answer) -> Iterable[str]:
    if answer.left is not None and answer.left.value is not None:
        yield f"What this does not explain is {number(answer.left.value)} floors."


def _size(answer: Answer) -> str:
    floor, size = answer.peeled.sample.floor, answer.size
    if size.value is None or size.n < FEWEST_TOKENS:
        return f"{size.n:,} tokens have a probability below 0.9 on both sides; that takes {FEWEST_TOKENS}."
    interval = "" if size.low is None else f" [{number(size.low)}, {number(size.high)}]"
    times = f"{number(size.value)}{interval} times the floor"
    source = _SOURCE[floor.source].format(most=number(floor.most or floor.value))
    return f"The gap is {times} of {number(floor.value)} {source}."


def _more(answer: Answer) -> str:
    if answer.size.n < FEWEST_TOKENS:
        return "Compare more tokens."
    if not answer.peeled.sample.floor.measured:
        return (
            "Measure the floor of this pair: a float32 run of the same weights as a third party, or a sound repeat."
        )
    return "Compare more prompts."


def _first_experiments() -> str:
    ordered = sorted(("settings", "weights", "context", "repeat"), key=lambda name: experiments()[name].cost)
    return f"{'; '.join(experiments()[name].how for name in ordered)}."


def _not_asked(answer: Answer) -> Iterable[str]:
    """The causes that no detector looked for, or not the best one, by what that needs."""
    peeled = answer.peeled
    left_out = {each.name for each in (*(detector for detector, _ in peeled.unasked), *peeled.short)}
    looked_for = {cause for each in detectors() if each.name not in left_out for cause in each.causes}
    lacking: dict[tuple[Need, ...], set[str]] = {}
    for detector, need in peeled.unasked:
        lacking.setdefault(need, set()).update(detector.causes)
    for need, missed in lacking.items():
        if missed - looked_for:
            yield f"without {' and '.join(need)}: {_titles(missed - looked_for)}"
        if missed & looked_for:
            yield f"looked for less surely without {' and '.join(need)}: {_titles(missed & looked_for)}"
    live = int(np.count_nonzero(peeled.sample.live_N))
    for detector in peeled.short:
        if few := set(detector.causes) - looked_for:
            yield f"with {live:,} tokens, of the {detector.tokens:,} that it takes: {_titles(few)}"
    for code in not_shown():
        cause = causes()[code]
        yield f"not from this evidence: {cause.title}; to tell, {experiments()[cause.experiment].how}"


def _titles(missed: set[str]) -> str:
    return "; ".join(sorted(causes()[each].title for each in missed))


def _picture(finding: Finding, number: int) -> DiagnosisPicture:
    picture = finding.picture
    assert picture is not None
    return DiagnosisPicture(
        picture.kind,
        number,
        picture.x_label,
        picture.y_label,
        picture.series,
        picture.labels,
        picture.marks,
        picture.floor,
    )


def _interval(stat: Stat, method: str) -> Interval:
    return Interval(stat.value, stat.low, stat.high, n=stat.n, method=method)
