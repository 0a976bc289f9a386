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
    steps = _compared(first)
    header = ("", "first", "last", "last / first", "changes at", "slope a step", "passed at")
    rows = tuple(_trend_row(*each) for each in named)
    moved = tuple(_moved(label, trend, steps) for label, trend in named if _has_moved(trend.relative))
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


def _compared(trend: Trend) -> str:
    return f"steps {range_text(trend.first_steps)} against {range_text(trend.last_steps)}"


def _moved(label: str, trend: Trend, section_steps: str) -> Line:
    first, last = (number(_mean_between(trend, steps)) for steps in (trend.first_steps, trend.last_steps))
    other_steps = "" if _compared(trend) == section_steps else f" ({_compared(trend)})"
    return Line(f"{label} goes from {first} to {last}, {_ratio_text(trend.relative)} times as much{other_steps}.")


def _by_chance(trend: Trend, figures: int) -> Line:
    chance = share(1 - trend.relative.confidence)
    return Line(f"Intervals hold one by one: each of {figures} figures is named by chance in {chance} of runs.")


def _ratio_text(ratio: Interval) -> str:
    """To two digits of the width, or of its half where that makes three in all, and to as many more as keep an end
    that is not 1 from reading 1."""
    if ratio.value is None or ratio.low is None or ratio.high is None or ratio.high <= ratio.low:
        return number(ratio.value)
    if ratio.low < 1e-3 or ratio.high >= 1e6:
        return interval_text(ratio)
    width = ratio.high - ratio.low
    decimals = max(_decimals(width, 2), min(_decimals(width / 2, 2), _decimals(ratio.high, 3)), 0)
    while any(round(end, decimals) == 1 != end for end in (ratio.low, ratio.high)):
        decimals += 1
    value, low, high = (f"{each:,.{decimals}f}" for each in (ratio.value, ratio.low, ratio.high))
    return f"{value} [{low}, {high}]"


def _decimals(value: float, digits: int) -> int:
    return digits - 1 - math.floor(math.log10(value))
