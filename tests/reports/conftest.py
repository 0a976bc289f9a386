from __future__ import annotations

import example_reports
import pytest

from mismatchscope.report import Report


@pytest.fixture(params=["full", "topk", "sampled"])
def report(request: pytest.FixtureRequest) -> Report:
    """Each of the three example reports in turn."""
    return getattr(example_reports, request.param)()


@pytest.fixture
def full() -> Report:
    return example_reports.full()


@pytest.fixture
def topk() -> Report:
    return example_reports.topk()


@pytest.fixture
def sampled() -> Report:
    return example_reports.sampled()
