"""Intervals side by side on one line."""

from __future__ import annotations

from dataclasses import replace

from log_report import group, interval

from mismatchscope.measures.log_results import Groups
from mismatchscope.measures.results import Interval
from mismatchscope.reports.logs.places import Place, places


def test_places_lie_on_one_line_from_zero() -> None:
    row = group("w0", 0.5)
    rows = (replace(row, tv=Interval(0.5, 0.25, 1.0)), replace(row, tv=Interval(0.25)))
    assert places(Groups("worker", rows)) == [Place(25.0, 50.0, 100.0), Place(25.0, 25.0, 25.0)]


def test_what_is_unknown_or_nothing_at_all_has_no_place() -> None:
    row = group("w0", 0.5)
    assert places(Groups("worker", (row, replace(row, tv=Interval(None)))))[1] is None
    assert places(Groups("worker", (replace(row, tv=interval(0.0)),))) == [None]
