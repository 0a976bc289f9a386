"""The file of sums by prompt beside a report."""

from __future__ import annotations

from pathlib import Path

import pytest

from mismatchscope.errors import TraceError
from mismatchscope.reports.document import Report
from mismatchscope.reports.prompt_sums import FigureSums, PromptSums

SUMS = PromptSums(
    prompts=["00ff", "01ff"], figures={"token.tv": FigureSums(sums=[0.125, 0.1 + 0.2], counts=[3, 4])}
)


def write(report: Report, file: Path) -> list[str]:
    texts = report.files(file)
    for path, text in texts.items():
        path.write_text(text)
    return [path.name for path in texts]


def test_they_come_back_with_the_report(full: Report, tmp_path: Path) -> None:
    assert write(full.with_prompt_sums(SUMS), tmp_path / "report.json") == ["report.json", "report.prompts.json"]
    assert Report.load(tmp_path).prompt_sums == SUMS
    assert "01ff" not in (tmp_path / "report.json").read_text()


def test_a_report_under_another_name_has_its_own(full: Report, tmp_path: Path) -> None:
    write(full.with_prompt_sums(SUMS), tmp_path / "main.json")
    write(full, tmp_path / "report.json")
    assert Report.load(tmp_path / "main.json").prompt_sums == SUMS
    assert Report.load(tmp_path).prompt_sums is None


def test_gates_do_not_lose_them(full: Report) -> None:
    assert full.with_prompt_sums(SUMS).model_copy(update={"verdict": "pass"}).prompt_sums == SUMS


def test_a_file_of_something_else_is_named(full: Report, tmp_path: Path) -> None:
    write(full, tmp_path / "report.json")
    (tmp_path / "report.prompts.json").write_text("{}")
    with pytest.raises(TraceError, match=r"report\.prompts\.json") as caught:
        Report.load(tmp_path)
    assert "without pairing" in caught.value.hint
