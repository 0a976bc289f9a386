from __future__ import annotations

import example_reports
import pytest

from mismatchscope.reports.charts import Chart, draw_charts
from mismatchscope.reports.document import Report
from mismatchscope.reports.html import render

_REPORTS = {
    name: getattr(example_reports, name)() for name in ("full", "topk", "sampled", "versions", "probe", "log")
}


@pytest.fixture(params=[*list(_REPORTS)[:-1], pytest.param("log", marks=pytest.mark.slow)])
def report(request: pytest.FixtureRequest) -> Report:
    """Each of the six example reports in turn."""
    return _REPORTS[request.param]


@pytest.fixture
def full() -> Report:
    return _REPORTS["full"]


@pytest.fixture
def topk() -> Report:
    return _REPORTS["topk"]


@pytest.fixture
def sampled() -> Report:
    return _REPORTS["sampled"]


@pytest.fixture
def versions() -> Report:
    return _REPORTS["versions"]


@pytest.fixture(scope="session")
def pages() -> dict[str, str]:
    """The HTML of the example reports by name, rendered once."""
    return {name: render(report) for name, report in _REPORTS.items() if name != "log"}


@pytest.fixture(scope="session")
def drawn() -> list[Chart]:
    """The charts of the full report, drawn once."""
    return draw_charts(_REPORTS["full"])
