"""The trends of a log as a section."""

from __future__ import annotations

import math

from ...measures.log_results import Trend
from ...measures.results import Interval
from ..document import Report
from ..text import number, share
from .section import Line, Section, interval_text, range_text
from .trends import known_trends


def trend_section(report: Report) -> Section:
    named = [(label, trend) for _, label, trend in known_trends(report.trend)]
    if not named:
        return Section("trend")
    first = named[0][1]
    steps = f"steps {range_text(first.first_steps)} against {range_text(first.last_steps)}"
    header = ("", "first", "last", "last / first", "changes at", "slope a step", "passed at")
    rows = tuple(_trend_row(*each) for each in named)
    moved = tuple(_moved(label, trend) for label, trend in named if _has_moved(trend.relative))
    chance = (_by_chance(first, len(named)),) if moved else ()
    passed = (_passed(label, trend) for label, trend in named if trend.tolerance is not None)
    sizes = (_size(label, trend.at_responses) for label, trend in named if trend.at_responses is not None)
    lines = (*moved, *chance, *sizes, *passed)
    return Section("trend", f"{steps}; it places, it does not judge", lines, header, rows)


def _trend_row(label: str, trend: Trend) -> tuple[str, ...]:
    return (
        label,
        number(_mean_between(trend, trend.first_steps)),
        number(_mean_between(trend, trend.last_steps)),
        _ratio_text(trend.relative),
        ", ".join(f"{change.step:,}" for change in trend.change_points),
        interval_text(trend.slope),
        "" if trend.passed_at is None else f"{trend.passed_at:,}",
    )


def _size(label: str, responses: int) -> Line:
    return Line(
        f"Steps have different numbers of responses, so {label} is that of groups of {responses:,} of them."
    )


def _passed(label: str, trend: Trend) -> Line:
    if trend.passed_at is None:
        return Line(f"{label} is not shown to pass {number(trend.tolerance)} at any step.")
    return Line(
        f"{label} passes {number(trend.tolerance)} at step {trend.passed_at:,}, the first of a few in a row whose "
        "whole interval is beyond.",
        "caution",
    )


def _mean_between(trend: Trend, steps: tuple[int, int]) -> float | None:
    values = [
        value
        for step, value in zip(trend.steps, trend.values, strict=True)
        if steps[0] <= step <= steps[1] and value is not None
    ]
    return sum(values) / len(values) if values else None


def _has_moved(relative: Interval) -> bool:
    return relative.low is not None and relative.high is not None and not relative.low <= 1 <= relative.high


def _moved(label: str, trend: Trend) -> Line:
    first, last = (
        f"{number(_mean_between(trend, steps))} in steps {range_text(steps)}"
        for steps in (trend.first_steps, trend.last_steps)
    )
    return Line(f"{label} goes from {first} to {last}: {_ratio_text(trend.relative)} times as much.")


def _by_chance(trend: Trend, figures: int) -> Line:
    chance = share(1 - trend.relative.confidence)
    return Line(f"Intervals hold one by one: any of {figures} figures is named by chance in {chance} of runs.")


def _ratio_text(ratio: Interval) -> str:
    """To two digits of the width, and to as many more as keep an end that is not 1 from reading 1."""
    if ratio.value is None or ratio.low is None or ratio.high is None or ratio.high <= ratio.low:
        return number(ratio.value)
    if ratio.low < 1e-3 or ratio.high >= 1e6:
        return interval_text(ratio)
    decimals = max(0, 1 - math.floor(math.log10(ratio.high - ratio.low)))
    while any(round(end, decimals) == 1 != end for end in (ratio.low, ratio.high)):
        decimals += 1
    value, low, high = (f"{each:,.{decimals}f}" for each in (ratio.value, ratio.low, ratio.high))
    return f"{value} [{low}, {high}]"
