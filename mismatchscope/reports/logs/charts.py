"""The pictures of a log: its figures over the steps, and what each correction keeps against what it leaves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ...foreign_text import printable
from ...measures.correction_results import Correction, CorrectionSweep
from ...measures.log_results import Trend
from ..charts import Chart
from ..document import Report
from ..svg import FLOOR, INK, SECOND, SERIES, STYLE, inline_svg
from ..text import number
from .trends import known_trends

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _MAIN, _SMALL, _AXIS = 400, 105, 62, 45  # of the view box; heights of a panel, a small one, the x axis
_POINTS = 300
"""Steps that are drawn; a longer run is drawn in groups of steps."""
_RULES = 8
"""Lines that one picture of corrections has at most."""
_CAPTION = (
    "The band is each step's interval, the dashed line the mean of the run's first steps, a dotted line a change "
    "of level. Beneath, what is not about the two policies."
)
_UNIT = {"token": "tokens", "sequence": "responses"}


def draw_log_charts(report: Report) -> list[Chart]:
    """Every chart that the log has data for."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        return [*_trend_charts(report), *_trade_offs(report)]


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
    from matplotlib.figure import Figure

    heights = [_MAIN] * len(main) + [_SMALL] * len(small)
    figure = Figure(figsize=(_WIDTH / 72, (sum(heights) + _AXIS) / 72), dpi=72, layout="constrained")
    panels = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (label, trend), color in zip(
        panels, [*main, *small], [SERIES] * len(main) + [SECOND] * len(small), strict=True
    ):
        _draw_trend(axes, label, trend, color)
    panels[-1].set_xlabel("step")
    figure.align_ylabels()
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
    # On its side a long name would be taller than its panel.
    axes.set_title(label, loc="left", fontsize=12, pad=3)
    axes.locator_params(axis="y", nbins=3)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4), useMathText=False)
    axes.yaxis.get_offset_text().set_visible(False)
    axes.yaxis.set_major_formatter(lambda value, _: _short(value))


def _short(value: float) -> str:
    if value and abs(value) < 1e-3:
        return f"{value:.3g}".replace("e-0", "e-")
    return f"{value:.4g}"


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


def _trade_offs(report: Report) -> Iterator[Chart]:
    for unit, plural in _UNIT.items():
        sweeps = [sweep for sweep in report.correction_sweeps if _points_of(sweep, unit)]
        if sweeps:
            yield _trade_off(f"trade-off-{unit}", unit, plural, sweeps[:_RULES], len(sweeps) - _RULES)


def _points_of(sweep: CorrectionSweep, unit: str) -> list[Correction]:
    return [point for point in sweep.points if point.unit == unit and point.tv_retained is not None]


def _kept(point: Correction) -> float:
    return point.kept_tokens if point.unit == "token" else point.kept_sequences


def _trade_off(name: str, unit: str, plural: str, sweeps: Sequence[CorrectionSweep], left_out: int) -> Chart:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH / 72, 400 / 72), dpi=72, layout="constrained")
    retained, clipped = figure.subplots(2, 1, sharex=True)
    for place, sweep in enumerate(sweeps):
        points = sorted(_points_of(sweep, unit), key=_kept)
        kept = [_kept(point) for point in points]
        style = {
            "color": (SERIES, SECOND, INK, FLOOR)[place % 4],
            "linewidth": 1.5,
            "linestyle": ("-", "--")[place // 4 % 2],
            "marker": "os^D"[place % 4],
            "markersize": 3.5,
        }
        label = printable(sweep.name.replace("_", " "))
        retained.plot(kept, [point.tv_retained for point in points], label=label, **style)
        masses = [math.nan if point.clipped_mass is None else point.clipped_mass for point in points]
        clipped.plot(kept, masses, **style)
    retained.set_title("mean TV of what is kept", loc="left", fontsize=12, pad=3)
    clipped.set_title("clipped mass, the bias", loc="left", fontsize=12, pad=3)
    clipped.set_xlabel(f"share of {plural} kept")
    for axes in (retained, clipped):
        axes.locator_params(nbins=5)
        axes.yaxis.set_major_formatter(lambda value, _: _short(value))
    handles, labels = retained.get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside upper left", ncols=2, handlelength=2.4, columnspacing=1.0)
    for text in legend.get_texts():
        text.set_parse_math(False)
    caption = "One line a rule, one point a threshold. A rule selects what is kept, so α₁ stays what it is."
    if left_out > 0:
        caption += f" {left_out} more rules are in report.json."
    title = f"Corrections of {plural}: kept against left"
    described = "; ".join(f"{sweep.name}: {len(sweep.points)} thresholds" for sweep in sweeps)
    return Chart(name, title, caption, inline_svg(figure, name, title, printable(described)))
