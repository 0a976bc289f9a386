"""The diagnosis of a report as every format shows it, from answers that are written down here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console
from syrupy.assertion import SnapshotAssertion

from mismatchscope.measures.diagnosis_results import (
    DetectorRecord,
    DiagnosedCause,
    DiagnosisAnswer,
    DiagnosisEvidence,
    DiagnosisPicture,
)
from mismatchscope.measures.results import Interval
from mismatchscope.reports import csv, html, markdown
from mismatchscope.reports.confirmation_fields import Confirmation, ExperimentStep, Proof
from mismatchscope.reports.console_diagnosis import show_diagnosis
from mismatchscope.reports.console_log import show_sections
from mismatchscope.reports.diagnosis_chart import diagnosis_charts
from mismatchscope.reports.diagnosis_section import diagnosis_section
from mismatchscope.reports.document import Report

CAUSE = DiagnosedCause(
    cause="worker",
    title="one worker that differs from the others",
    confidence=DetectorRecord(41, 42, Interval(41 / 42, 0.877, 0.996)),
    evidence=(DiagnosisEvidence("R of worker-2", 10.8, 9.9, 11.6, 1043, 1.02, 1e-4),),
    scope="24 of 96 sequences: 2, 6, 10, 14, 18, 22 …",
    sequences=tuple(range(2, 96, 4)),
    confirm="hold what each side has loaded against the checkpoint",
    fix="sync or replace that worker",
    finding=0,
    alternatives=1,
    detector="grouping.metadata",
    why="R is 10.8 floors in 24 sequences, and 1.02 in the others.",
    explained=0.784,
    docs="causes/worker.md",
)
ANSWER = DiagnosisAnswer(
    code="cause",
    what="One worker that differs from the others.",
    why="R is 10.8 floors in 24 sequences, and 1.02 in the others.",
    next="Sync or replace that worker.",
    size=Interval(5.5, 5.0, 6.0, n=3511),
    left=Interval(1.02, 0.99, 1.05, n=2630),
    floor=0.03,
    floor_source="prior",
    level="sampled",
    tokens=4372,
    tokens_seen=1_000_000,
    sequences=96,
    facts=("The reference has a float32 head.",),
    doubted=("E ρ is 0.99.",),
    not_asked=("without distributions: a bfloat16 head on one side",),
)
SET = [
    replace(CAUSE, cause=code, title=title, alternatives=2, scope=None, docs=f"causes/{code}.md")
    for code, title in (("rope", "another rotary base"), ("window", "another window"))
]


def picture(kind: Any, **changes: Any) -> DiagnosisPicture:
    points = (("R", (0.0, 1.0, 2.0), (1.0, 1.02, 10.8)),)
    return DiagnosisPicture(kind, 0, "worker", "R, in floors", points, **changes)


def report_with(report: Report, causes: list[DiagnosedCause], answer: DiagnosisAnswer | None) -> Report:
    return report.model_copy(update={"diagnosis": causes, "diagnosis_answer": answer})


def shown(report: Report, *, short: bool, width: int = 100) -> str:
    console = Console(width=width, no_color=True, force_terminal=False)
    with console.capture() as text:
        show_sections([diagnosis_section(report, short=short)], console)
    return text.get()


@pytest.mark.parametrize("short", [True, False])
def test_one_cause_on_a_terminal(full: Report, short: bool, snapshot: SnapshotAssertion) -> None:
    assert shown(report_with(full, [CAUSE], ANSWER), short=short) == snapshot


def test_a_set_on_a_terminal(full: Report, snapshot: SnapshotAssertion) -> None:
    answer = replace(
        ANSWER,
        code="set",
        what="Another rotary base or another window.",
        next="To tell them apart, compare the configurations key by key.",
    )
    assert shown(report_with(full, SET, answer), short=True) == snapshot


STEPS = [
    ExperimentStep(
        "settings", "Which keys differ?", "unclear", None, "None closes the gap.", ["rope", "head"], "a", 40
    ),
    ExperimentStep(
        "weights", "Have both sides the same tensors?", "told", "head", "lm_head differs.", ["head"], "b", 9
    ),
    ExperimentStep("cache", "Gone after a reset?", "skipped", None, "Not possible here: no cache.", ["head"]),
]
PROOF = Proof("lm_head=float32", Interval(0.01, 0.009, 0.011), Interval(1e-4, 5e-5, 2e-4), floor=1e-4)


def confirmed(report: Report, found: Confirmation) -> Report:
    return report_with(report, [CAUSE], ANSWER).model_copy(update={"confirmation": found})


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(Confirmation("Proved: the head.", "head", ["head"], STEPS, PROOF), id="proved"),
        pytest.param(Confirmation("Cannot tell which.", None, ["rope"] * 7, STEPS[:1], withdrawn=True), id="open"),
    ],
)
def test_experiments_on_a_terminal(full: Report, found: Confirmation, snapshot: SnapshotAssertion) -> None:
    console = Console(width=100, no_color=True, force_terminal=False)
    with console.capture() as text:
        show_diagnosis(confirmed(full, found), console)
    assert text.get() == snapshot


def test_experiments_are_in_markdown_and_json(full: Report) -> None:
    report = confirmed(full, Confirmation("Proved: the head.", "head", ["head"], STEPS, PROOF))
    text = markdown.render(report)
    assert "Proved: the head." in text and "| settings | no clear result | rope, head | 40 s |" in text
    again = Report.model_validate_json(report.to_json())
    assert again.confirmation == report.confirmation


def test_markdown_shows_all_of_it(full: Report, snapshot: SnapshotAssertion) -> None:
    text = markdown.render(report_with(full, [CAUSE], ANSWER))
    assert text[text.index("**diagnosis**") :].split("\n\n**")[0] == snapshot


@pytest.mark.parametrize("kind", ["positions", "log_odds", "sequences", "groups", "values"])
def test_every_kind_of_picture_is_drawn_and_described(full: Report, kind: str) -> None:
    answer = replace(ANSWER, pictures=(picture(kind, marks=(("break", 1.0),), floor=1.0),))
    (chart,) = diagnosis_charts(report_with(full, [CAUSE], answer))
    assert chart.svg.startswith("<svg") and "break at 1." in chart.svg and "R, in floors over worker" in chart.svg


@pytest.mark.slow
def test_labels_of_groups_are_on_the_axis(full: Report) -> None:
    answer = replace(ANSWER, pictures=(picture("groups", labels=("w-0", "w-1", "w-2"), floor=1.0),))
    page = html.render(report_with(full, [CAUSE], answer))
    assert "The gap of each group" in page and "24 of 96 sequences" in page


def test_figures_are_in_the_table_and_points_of_pictures_are_not(full: Report) -> None:
    answer = replace(ANSWER, pictures=(picture("groups"),))
    text = csv.render(report_with(full, [CAUSE], answer))
    rows = [line for line in text.splitlines() if line.startswith("diagnosis_answer,")]
    assert "diagnosis_answer,size,value,5.5" in rows and "diagnosis_answer,left,n,2630" in rows
    assert not any("pictures" in row for row in rows)


def test_a_picture_without_points_is_left_out(full: Report) -> None:
    empty = DiagnosisPicture("positions", 0, "position", "R", (("R", (0.0,), (None,)),))
    assert not list(diagnosis_charts(report_with(full, [CAUSE], replace(ANSWER, pictures=(empty,)))))


def test_without_a_diagnosis_nothing_is_said(full: Report) -> None:
    section = diagnosis_section(report_with(full, [], None), short=False)
    assert not section.lines and not section.rows


@pytest.mark.slow
def test_foreign_text_in_an_answer_stays_text(full: Report) -> None:
    foreign = replace(CAUSE, scope="worker <b>\x1b[31m@all</b>")
    report = report_with(full, [foreign], ANSWER)
    assert "\x1b" not in shown(report, short=False)
    assert "<b>\x1b" not in html.render(report) and "worker <b>" not in html.render(report)
    assert "@all" not in markdown.render(report)
