"""The groups of tests/conftest.py reach pytest-xdist: without them each process makes every shared fixture anew."""

from __future__ import annotations

import pytest


def test_xdist_has_grouped_the_tests(request: pytest.FixtureRequest) -> None:
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("the suite runs in one process")
    assert request.node.nodeid.endswith("@tests.test_groups"), (
        "pytest and pytest-xdist as pyproject.toml bounds them"
    )
