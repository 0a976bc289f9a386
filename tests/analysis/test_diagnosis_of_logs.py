"""Logs with a planted fault: what the report says causes the gap, in every form that a person sees."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import planted_logs
import pytest

from mismatchscope.analysis.analyze import analyze
from mismatchscope.analysis.settings import AnalysisSettings
from mismatchscope.reports import html, markdown
from mismatchscope.reports.diagnosis_section import diagnosis_section
from mismatchscope.reports.document import Report
from mismatchscope.reports.formats import FORMATS, render

PLANTS: dict[str, Callable[..., Any]] = {
    "off_by_one": planted_logs.shifted_quarter,
    "temperature": planted_logs.temperature,
    "worker": planted_logs.stale_worker,
    "top1_logprob": planted_logs.top_1,
}


def analyzed(path: Path) -> Report:
    return analyze([path], AnalysisSettings(), processes=1)


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Report]:
    directory = tmp_path_factory.mktemp("logs")
    plants = PLANTS | {"sound": planted_logs.sound}
    logs = {name: planted_logs.planted_log(directory / f"{name}.parquet", plant) for name, plant in plants.items()}
    return {name: analyzed(path) for name, path in logs.items()}


@pytest.mark.slow
@pytest.mark.parametrize("cause", PLANTS)
def test_the_planted_cause_is_named_alone(reports: dict[str, Report], cause: str) -> None:
    report = reports[cause]
    assert report.diagnosis_answer is not None
    assert report.diagnosis_answer.code == "cause"
    assert [each.cause for each in report.diagnosis] == [cause]
    (found,) = report.diagnosis
    assert found.docs == f"causes/{cause}.md"
    assert found.explained is not None and found.explained > 0.7
    (evidence,) = found.evidence
    assert evidence.value is not None and evidence.n > 0


@pytest.mark.slow
def test_the_sequences_are_those_of_the_log(reports: dict[str, Report]) -> None:
    (shifted,) = reports["off_by_one"].diagnosis
    assert set(shifted.sequences) == set(range(1, planted_logs.PROMPTS * planted_logs.SAMPLES, 4))
    (stale,) = reports["worker"].diagnosis
    assert set(stale.sequences) == set(range(2, planted_logs.PROMPTS * planted_logs.SAMPLES, 4))


@pytest.mark.slow
def test_rounding_is_no_fault(reports: dict[str, Report]) -> None:
    """The log says of no dtype, and two sides in float32 would not be so far apart."""
    report = reports["sound"]
    assert report.diagnosis_answer is not None
    assert report.diagnosis_answer.code == "cannot_tell" and not report.diagnosis
    assert report.diagnosis_answer.next.startswith("Measure the floor of this pair")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*PLANTS, "sound"])
def test_a_person_reads_what_and_why_and_what_to_do(reports: dict[str, Report], name: str) -> None:
    answer = reports[name].diagnosis_answer
    assert answer is not None
    what, why = diagnosis_section(reports[name], short=True).lines
    assert what.text.startswith(answer.what.rstrip(".)"))
    assert why.text == answer.why and len(re.findall(r"\d", why.text)) > 2
    assert (why.remedy or "").startswith(answer.next)


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANTS)
def test_every_other_form_says_the_same_and_the_page_has_the_picture(reports: dict[str, Report], name: str) -> None:
    report = reports[name]
    (found,) = report.diagnosis
    assert f"docs/{found.docs}" in markdown.render(report).replace("&#95;", "_")
    assert all(render(report, form) for form in FORMATS)
    page = html.render(report)
    section = page[page.index("<h2>Diagnosis") : page.index("<h2>Same distribution")]
    picture = re.search(r"<svg.*?</svg>", section, re.DOTALL)
    assert picture is not None and f"docs/{found.docs}" in section
    assert Report.model_validate_json(report.to_json()).diagnosis == report.diagnosis


@pytest.mark.slow
@pytest.mark.parametrize(
    ("without", "said"),
    [
        (("worker", "step"), "without metadata"),
        (("token_ids",), "without token ids"),
    ],
)
def test_what_a_log_lacks_is_said_to_be_not_looked_for(tmp_path: Path, without: tuple[str, ...], said: str) -> None:
    log = planted_logs.planted_log(tmp_path / "log.parquet", planted_logs.stale_worker, without=without)
    answer = analyzed(log).diagnosis_answer
    assert answer is not None
    assert any(said in each for each in answer.not_asked), answer.not_asked


@pytest.mark.slow
def test_without_its_label_a_worker_is_not_named_alone(tmp_path: Path) -> None:
    log = planted_logs.planted_log(tmp_path / "log.parquet", planted_logs.stale_worker, without=("worker", "step"))
    report = analyzed(log)
    assert [each.cause for each in report.diagnosis] != ["worker"]
    assert report.diagnosis_answer is not None and report.diagnosis_answer.code != "ordinary_rounding"


@pytest.mark.slow
def test_the_order_of_a_log_without_steps_tells_of_a_missed_sync(tmp_path: Path) -> None:
    log = planted_logs.planted_log(tmp_path / "log.parquet", planted_logs.missed_sync, without=("worker", "step"))
    report = analyzed(log)
    (found,) = report.diagnosis
    assert found.cause == "stale_weights"
    assert f"before {planted_logs.MISSED_FROM}," in found.why
    assert set(found.sequences) == set(range(planted_logs.MISSED_FROM, planted_logs.PROMPTS * planted_logs.SAMPLES))
    page = html.render(report)
    assert "from here on" in page[page.index("<h2>Diagnosis") :]
