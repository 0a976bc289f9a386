"""The trends of a log as a section."""

from __future__ import annotations

from collections.abc import Iterator

from ...measures.log_results import Trend
from ..document import Report
from ..text import number
from .section import Line, Section, interval_text, range_text
from .trends import known_trends


def trend_section(report: Report) -> Section:
    named = [(label, trend) for _, label, trend in known_trends(report.trend)]
    if not named:
        return Section("trend")
    first = named[0][1]
    steps = f"steps {range_text(first.first_steps)} against {range_text(first.last_steps)}"
    header = ("", "first", "last", "last / first", "slope a step", "changes at", "passed at")
    rows = tuple(_trend_row(*each) for each in named)
    lines = (*_moved(named), *(_passed(label, trend) for label, trend in named if trend.tolerance is not None))
    return Section("trend", f"{steps}; it places, it does not judge", lines, header, rows)


def _trend_row(label: str, trend: Trend) -> tuple[str, ...]:
    return (
        label,
        number(_mean_between(trend, trend.first_steps)),
        number(_mean_between(trend, trend.last_steps)),
        interval_text(trend.relative),
        interval_text(trend.slope),
        ", ".join(f"{change.step:,}" for change in trend.change_points),
        "" if trend.passed_at is None else f"{trend.passed_at:,}",
    )


def _passed(label: str, trend: Trend) -> Line:
    if trend.passed_at is None:
        return Line(f"{label} is not shown to pass {number(trend.tolerance)} at any step.")
    there = f"at step {trend.passed_at:,}: there its whole interval is beyond"
    return Line(f"{label} passes {number(trend.tolerance)} {there}.", "caution")


def _mean_between(trend: Trend, steps: tuple[int, int]) -> float | None:
    values = [
        value
        for step, value in zip(trend.steps, trend.values, strict=True)
        if steps[0] <= step <= steps[1] and value is not None
    ]
    return sum(values) / len(values) if values else None


def _moved(named: list[tuple[str, Trend]]) -> Iterator[Line]:
    """A sentence of each figure whose ratio to its own first steps is not 1, to its confidence."""
    for label, trend in named:
        relative = trend.relative
        if relative.value is None or relative.low is None or relative.high is None:
            continue
        if relative.low > 1 or relative.high < 1:
            of_it = f"{number(relative.value)} {'times' if relative.value >= 1 else 'of'} what it was in steps"
            yield Line(f"{label} is {of_it} {range_text(trend.first_steps)} ({interval_text(relative)}).")
