"""Whatever stands in any field of a report, nothing acts and nothing hides in any form that it is shown in.

Each example fills every text of a report that is not one of a fixed set, and keys of its free tables, with strings
of its own, and they go through every renderer at once.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import pytest
from example_reports import full, versions
from hostile_text import FRAGMENTS, dangers, hostile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mismatchscope.commands.terminal import stdout
from mismatchscope.reports import html
from mismatchscope.reports.console import show
from mismatchscope.reports.document import Finding, Report
from mismatchscope.reports.formats import FORMATS, render

pytestmark = pytest.mark.slow

Path = tuple[str | int, ...]


def texts(node: Any, path: Path = ()) -> Iterator[Path]:
    """Where a document has texts."""
    if isinstance(node, str):
        yield path
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from texts(value, (*path, key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from texts(value, (*path, index))


def with_text(node: Any, path: Path, text: str) -> Any:
    if not path:
        return text
    copy = node.copy()
    copy[path[0]] = with_text(node[path[0]], path[1:], text)
    return copy


def is_free(document: dict[str, Any], path: Path) -> bool:
    """Whether any text may stand there."""
    try:
        Report.model_validate(with_text(document, path, "anything else"))
    except ValidationError:
        return False
    return True


widths = st.integers(1, 200)
DOCUMENTS = [report.model_dump(mode="json") for report in (full(), versions())]
FREE = [[path for path in texts(document) if is_free(document, path)] for document in DOCUMENTS]


def filled(which: int, strings: list[str]) -> Report:
    """A report with these strings in turn in every free text, and as keys of what the sides recorded."""
    document = DOCUMENTS[which]
    for number, path in enumerate(FREE[which]):
        document = with_text(document, path, strings[number % len(strings)])
    for side in ("behavior", "reference"):
        document["provenance"][side]["settings"] = {text: {text: text} for text in strings}
    return Report.model_validate(document)


def shown(report: Report, capsys: pytest.CaptureFixture[str], *, verbose: bool = True) -> str:
    capsys.readouterr()
    show(report, stdout(), verbose=verbose)
    return capsys.readouterr().out


def test_most_texts_of_a_report_are_free() -> None:
    assert [len(paths) > 60 for paths in FREE] == [True, True]


@pytest.fixture
def without_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take a second and show numbers alone."""
    monkeypatch.setattr(html, "draw_charts", lambda report: [])


@given(
    which=st.sampled_from([0, 1]), strings=st.lists(hostile(), min_size=8, max_size=40), width=st.integers(1, 200)
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_acts_and_nothing_hides_in_any_form(
    which: int,
    strings: list[str],
    width: int,
    without_charts: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch,
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    report = filled(which, strings)
    for format in FORMATS:
        assert not dangers(render(report, format)), format
    assert not dangers(shown(report, capsys))


def test_every_fragment_in_every_form(without_charts: None, capsys: pytest.CaptureFixture[str]) -> None:
    """All of them, and what each form must keep besides."""
    report = filled(0, [f"{fragment}x" for fragment in FRAGMENTS])
    assert json.loads(render(report, "json")) == report.model_dump(mode="json")
    assert Report.model_validate_json(render(report, "json")) == report
    cells = [cell for row in csv.reader(io.StringIO(render(report, "csv"))) for cell in row[:3]]
    assert not [cell for cell in cells if re.match(r"\s*[=+\-@]", cell)]
    ElementTree.fromstring(render(report, "junit").encode())
    page = render(report, "html")
    assert "<script" not in page and "alert(1)" in page
    markdown = render(report, "markdown")
    assert not re.search(r"<script|\]\(|@someone|&#64;someone|:smile:", markdown)
    assert {line.count("|") for line in markdown.splitlines() if line.startswith("| &#")} <= {4, 5, 6, 7}


def test_what_can_be_read_is_read_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    sentence = "[bold]a[/] :smile: {{ 7*7 }} 你好 🙂 std::vector #1"
    report = full().model_copy(update={"finding": Finding(code="no_floor", sentence=sentence)})
    assert sentence in shown(report, capsys)
    assert sentence in render(report, "html")
    assert sentence in render(report, "junit")
