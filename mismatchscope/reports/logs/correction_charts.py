"""The pictures of corrections: what each keeps against what it leaves, and what it did step by step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ...foreign_text import printable
from ...measures.correction_results import Correction, CorrectionSeries, CorrectionSweep
from ..charts import Chart
from ..document import Report
from ..svg import FLOOR, INK, SECOND, SERIES, inline_svg
from ..text import setting
from .axes import name_panel, stacked_panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_RULES = 8
"""Lines that one picture has at most."""
_POINTS = 300
"""Steps that one line has at most."""
_PANEL, _LEGEND_ROW = 110, 18  # heights
_UNIT = {"token": "tokens", "sequence": "responses"}


def correction_charts(report: Report) -> Iterator[Chart]:
    """The trade-off of the rules that weight tokens, and of those that weight responses; then both over the run."""
    for unit, plural in _UNIT.items():
        sweeps = [sweep for sweep in report.correction_sweeps if _points_of(sweep, unit)]
        if sweeps:
            yield _trade_off(f"correction-{unit}", unit, plural, sweeps[:_RULES], len(sweeps) - _RULES)
    for by in ("step", "lag"):
        series = [each for each in report.correction_series if each.by == by and len(each.labels) > 1]
        if series:
            yield _over_run(f"correction-by-{by}", by, series[:_RULES], len(series) - _RULES)


def _points_of(sweep: CorrectionSweep, unit: str) -> list[Correction]:
    return [point for point in sweep.points if point.unit == unit and point.tv_retained is not None]


def _kept(point: Correction) -> float:
    return point.kept_tokens if point.unit == "token" else point.kept_sequences


def _trade_off(name: str, unit: str, plural: str, sweeps: Sequence[CorrectionSweep], left_out: int) -> Chart:
    figure, (retained, clipped) = _two_panels("mean TV of what is kept", "clipped mass, E (ρ − w)₊", len(sweeps))
    for place, sweep in enumerate(sweeps):
        points = sorted(_points_of(sweep, unit), key=_kept)
        kept = [_kept(point) for point in points]
        style = _style(place) | {"marker": "os^D"[place % 4], "markersize": 3.5}
        left = [math.nan if point.tv_retained is None else point.tv_retained for point in points]
        retained.plot(kept, left, label=_rule(sweep.name), **style)
        masses = [math.nan if point.clipped_mass is None else point.clipped_mass for point in points]
        clipped.plot(kept, masses, **style)
    clipped.set_xlabel(f"share of {plural} kept")
    _legend(figure, retained)
    caption = "One line a rule, one point a threshold. A rule selects what is kept, so α₁ stays what it is."
    title = f"Corrections of {plural}: kept against left"
    described = "; ".join(f"{sweep.name}: {len(sweep.points)} thresholds" for sweep in sweeps)
    return Chart(name, title, caption + _left_out(left_out), inline_svg(figure, name, title, printable(described)))


def _over_run(name: str, by: str, series: Sequence[CorrectionSeries], left_out: int) -> Chart:
    figure, (kept, weight) = _two_panels("share of tokens kept", "mean weight", len(series))
    stride = 1
    for place, each in enumerate(series):
        stride = math.ceil(len(each.labels) / _POINTS)
        label = _rule(" ".join([each.name, *(setting(value) for value in each.parameters.values())]))
        kept.plot(each.labels[::stride], each.kept_tokens[::stride], label=label, **_style(place))
        weight.plot(each.labels[::stride], each.mean_weight[::stride], **_style(place))
    weight.set_xlabel(by)
    _legend(figure, kept)
    caption = "One line a rule at its usual threshold. How much of the gradient is left is the mean weight."
    if stride > 1:
        caption += f" One {by} of {stride} is drawn."
    title = f"Corrections by {by}"
    described = f"{len(series)} rules from {by} {series[0].labels[0]} to {series[0].labels[-1]}."
    return Chart(name, title, caption + _left_out(left_out), inline_svg(figure, name, title, described))


def _two_panels(upper: str, lower: str, lines: int) -> tuple[Figure, tuple[Axes, Axes]]:
    """`lines` that the legend names, two a row."""
    figure, (first, second) = stacked_panels([_PANEL] * 2, above=math.ceil(lines / 2) * _LEGEND_ROW)
    name_panel(first, upper)
    name_panel(second, lower)
    second.locator_params(axis="x", nbins=5)
    return figure, (first, second)


def _style(place: int) -> dict[str, Any]:
    return {
        "color": (SERIES, SECOND, INK, FLOOR)[place % 4],
        "linewidth": 1.5,
        "linestyle": ("-", "--")[place // 4 % 2],
    }


def _rule(name: str) -> str:
    return printable(name.replace("_", " "))


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="upper left", ncols=2, handlelength=2.4, columnspacing=1.0)
    for text in legend.get_texts():
        text.set_parse_math(False)  # names of rules can be foreign


def _left_out(number: int) -> str:
    return f" {number} more are in report.json." if number > 0 else ""
