"""The pictures of a log: its figures over the steps, and what corrections would do."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ...measures.log_results import Trend
from ..charts import Chart
from ..document import Report
from ..svg import FLOOR, INK, SECOND, SERIES, STYLE, inline_svg
from ..text import number
from .axes import name_panel, stacked_panels
from .correction_charts import correction_charts
from .trends import known_trends

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAIN, _SMALL = 81, 38  # heights of a panel
_POINTS = 300
"""Steps that are drawn; a longer run is drawn in groups of steps."""
_CAPTION = (
    "The band is each step's interval, the dashed line the mean of the run's first steps, a dotted line a change "
    "of level. Beneath, what is not about the two policies."
)


def draw_log_charts(report: Report) -> list[Chart]:
    """Every chart that the log has data for."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        return [*_trend_charts(report), *correction_charts(report)]


def _trend_charts(report: Report) -> Iterator[Chart]:
    found = [(group, label, trend) for group, label, trend in known_trends(report.trend) if _drawable(trend)]
    beside = [(label, trend) for group, label, trend in found if group == "run"]
    for group, title in (("token", "Tokens, step by step"), ("sequence", "Responses, step by step")):
        main = [(label, trend) for of, label, trend in found if of == group]
        if main:
            yield _trend_chart(f"trend-{group}", title, _CAPTION, main, beside[:3])
    if len(beside) > 3:
        yield _trend_chart("trend-run", "Beside them", "What else the log has of each step.", [], beside[3:])


def _drawable(trend: Trend) -> bool:
    return len(trend.steps) > 1 and sum(value is not None for value in trend.values) > 1


def _trend_chart(
    name: str, title: str, caption: str, main: Sequence[tuple[str, Trend]], small: Sequence[tuple[str, Trend]]
) -> Chart:
    figure, panels = stacked_panels([_MAIN] * len(main) + [_SMALL] * len(small))
    for axes, (label, trend), color in zip(
        panels, [*main, *small], [SERIES] * len(main) + [SECOND] * len(small), strict=True
    ):
        _draw_trend(axes, label, trend, color)
    panels[-1].set_xlabel("step")
    described = "; ".join(f"{label} ends at {number(_last(trend))}" for label, trend in main or small)
    return Chart(name, title, caption, inline_svg(figure, name, title, described + "."))


def _last(trend: Trend) -> float | None:
    return next((value for value in reversed(trend.values) if value is not None), None)


def _draw_trend(axes: Axes, label: str, trend: Trend, color: str) -> None:
    points = _points(trend)
    steps, values, low, high = zip(*points, strict=True)
    axes.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0)
    axes.plot(steps, values, color=color, linewidth=1.6)
    first = [value for step, value in zip(trend.steps, trend.values, strict=True) if _within(step, trend, value)]
    if first:
        level = sum(value for value in first if value is not None) / len(first)
        axes.axhline(level, color=FLOOR, linewidth=1.0, dashes=(4, 2))
    for change in trend.change_points:
        axes.axvline(change.step, color=INK, linewidth=1.0, dashes=(1, 1.5))
    if trend.tolerance is not None:
        axes.axhline(trend.tolerance, color=INK, linewidth=0.8)
    name_panel(axes, label)


def _within(step: int, trend: Trend, value: float | None) -> bool:
    return trend.first_steps[0] <= step <= trend.first_steps[1] and value is not None and math.isfinite(value)


def _points(trend: Trend) -> list[tuple[float, float, float, float]]:
    """Step, value and its ends; of a long run the mean of some steps, and the widest ends among them.

    An end that is unknown is drawn where the value is; a step without a value, or with an infinite one, is a gap.
    """
    known: list[tuple[float, float, float, float]] = []
    for at, value, low, high in zip(trend.steps, trend.values, trend.low, trend.high, strict=True):
        if value is None or not math.isfinite(value):
            known.append((float(at), math.nan, math.nan, math.nan))
        else:
            low, high = (value if end is None or not math.isfinite(end) else end for end in (low, high))
            known.append((float(at), value, low, high))
    size = math.ceil(len(known) / _POINTS)
    if size == 1:
        return known
    drawn = []
    for start in range(0, len(known), size):
        group = [point for point in known[start : start + size] if not math.isnan(point[1])]
        if group:
            step, value = (sum(point[at] for point in group) / len(group) for at in (0, 1))
            drawn.append((step, value, min(point[2] for point in group), max(point[3] for point in group)))
    return drawn
