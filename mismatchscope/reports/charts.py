"""The pictures of the HTML report, drawn by matplotlib as static SVG.

Each takes the report and returns None where the report has nothing to draw. The repeat floor is drawn on the
same axes wherever it was measured, so that noise is seen beside the mismatch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import MissingDependencyError
from ..measures.results import Exceedance
from .document import Report
from .summary import exceeding
from .svg import FLOOR, INK, SECOND, SERIES, STYLE, inline_svg
from .text import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT = 400, 280  # of the view box; a phone shows it at nearly this size, so text stays legible
# Probabilities beyond these are drawn on the edge, and the caption says so.
_LEAST_PROBABILITY = 1e-4
_PROBABILITY_TICKS = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)


class Chart(NamedTuple):
    """`caption` says how to read the picture."""

    name: str
    title: str
    caption: str
    svg: str


def draw_charts(report: Report) -> list[Chart]:
    """Every chart that the report has data for. Raises `MissingDependencyError` without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        raise MissingDependencyError("matplotlib", "report", "An HTML report") from None
    drawn = []
    with matplotlib.rc_context(STYLE):
        for name, (title, caption, draw) in _CHARTS.items():
            figure, axes = _new_axes()
            description = draw(axes, report)
            if description is not None:
                _finish(axes)
                drawn.append(Chart(name, title, caption, inline_svg(figure, name, title, description)))
    return drawn


def _new_axes() -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    # A plain Figure, not pyplot: no global state, nothing to close.
    figure = Figure(figsize=(_WIDTH / 72, _HEIGHT / 72), dpi=72, layout="constrained")
    return figure, figure.add_subplot()


def _finish(axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.figure.legend(
            handles,
            labels,
            loc="outside upper left",
            ncols=len(handles),
            columnspacing=1.0,
            handlelength=1.2,
            handletextpad=0.5,
        )
    axes.minorticks_off()


def _exceedance(axes: Axes, report: Report) -> str | None:
    curve = report.alpha1.exceedance
    if not any(point.tokens_lower > 0 for point in curve):
        return None
    _draw_curve(axes, curve, "tokens", SERIES)
    _draw_curve(axes, curve, "prompts", SECOND)
    _draw_floor_curve(axes, report.figures.floor_exceedance)
    axes.set(
        xscale="log", yscale="log", xlabel="τ", ylabel="share with TV > τ", ylim=(0.5 / report.counts.tokens, 1.5)
    )
    _log_ticks(axes.xaxis, *axes.get_xlim())
    _log_ticks(axes.yaxis, *axes.get_ylim())
    shown = [point for point in curve if point.tokens_lower > 0][-1]
    of_tokens = exceeding(shown.tokens, shown.tokens_lower)
    return f"The last visited states are beyond τ = {number(shown.tau)}: {of_tokens} of tokens."


def _draw_curve(axes: Axes, curve: Sequence[Exceedance], unit: str, color: str) -> None:
    seen = _seen(curve, unit)
    tau, value = zip(*seen, strict=True)
    axes.plot(tau, value, color=color, linewidth=1.8, label=_curve_label(curve, unit))
    limits = [(p.tau, getattr(p, f"{unit}_upper")) for p in curve]
    if any(limit is None for _, limit in limits):
        return  # nothing is known from above
    inside = [limit for at, limit in limits if at in tau]
    axes.fill_between(tau, value, inside, color=color, alpha=0.18, linewidth=0)
    # Beyond the last state that was seen, only the limit is known.
    axes.plot(
        *zip(*[point for point in limits if point[0] >= tau[-1]], strict=True),
        color=color,
        linewidth=0.8,
        alpha=0.7,
    )


def _draw_floor_curve(axes: Axes, curve: Sequence[Exceedance]) -> None:
    for unit, dashes in (("tokens", (4, 2)), ("prompts", (1, 1.5))):
        if seen := _seen(curve, unit):
            label = f"floor, {_curve_label(curve, unit)}"
            axes.plot(*zip(*seen, strict=True), color=FLOOR, linewidth=1.4, dashes=dashes, label=label)


def _seen(curve: Sequence[Exceedance], unit: str) -> list[tuple[float, float]]:
    return [(p.tau, getattr(p, f"{unit}_lower")) for p in curve if getattr(p, f"{unit}_lower") > 0]


def _curve_label(curve: Sequence[Exceedance], unit: str) -> str:
    known = all(getattr(p, unit) is not None for p in curve)
    return unit if known else f"{unit}, at least"


def _ratio_histogram(axes: Axes, report: Report) -> str | None:
    histogram = report.figures.ratio_histogram
    if histogram is None:
        return None
    # Equal steps of log ρ: the ratio on a log axis, at any width. A float may have run out at either end.
    edges = [min(max(edge, 1e-150), 1e150) for edge in histogram.edges]
    log_edges = [math.log(edge) for edge in edges]
    axes.stairs(histogram.counts, log_edges, fill=True, color=SERIES, alpha=0.5, label="μ against π")
    if histogram.floor_counts is not None:
        axes.stairs(histogram.floor_counts, log_edges, color=FLOOR, linewidth=1.6, label="repeat floor")
    axes.set(yscale="log", xlabel="token ratio ρ = π/μ", ylabel="tokens", ylim=(0.5, None))
    ticks = ratio_ticks(edges[0], edges[-1])
    axes.set_xticks([math.log(tick) for tick in ticks], [ratio_label(tick) for tick in ticks])
    _log_ticks(axes.yaxis, *axes.get_ylim())
    return f"{sum(histogram.counts):,} tokens, with ratios from {number(edges[0])} to {number(edges[-1])}."


def ratio_ticks(low: float, high: float) -> list[float]:
    """A few round ratios: decades on a wide axis, equal steps on a narrow one, parts of decades between."""
    from matplotlib.ticker import MaxNLocator

    if high / low <= 3:
        ticks = [float(tick) for tick in MaxNLocator(5).tick_values(low, high)]
    else:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        steps = (1, 1.5, 2, 3, 5, 7) if high / low <= 20 else (1, 2, 5) if high / low <= 1000 else (1,)
        ticks = [step * 10.0**decade for decade in decades[:: math.ceil(len(decades) / 6)] for step in steps]
    return [tick for tick in ticks if low <= tick <= high]


def ratio_label(ratio: float) -> str:
    """`1.05`, and `1+2e-5` where the distance to 1 would drown in decimals."""
    distance = ratio - 1
    if 0 < abs(distance) < 1e-3:
        return f"1{distance:+.0e}".replace("e-0", "e-")
    return f"{ratio:g}"


def _probabilities(axes: Axes, report: Report) -> str | None:
    scatter = report.figures.probability_scatter
    if scatter is None or not scatter.x:
        return None
    edge = _logit(1 - _LEAST_PROBABILITY)
    axes.plot([-edge, edge], [-edge, edge], color=INK, linewidth=0.8, zorder=0.9)
    _draw_points(axes, _logits(scatter.x), _logits(scatter.y), SERIES, "μ against π")
    if scatter.floor_y is not None:
        _draw_points(axes, _logits(scatter.x), _logits(scatter.floor_y), FLOOR, "repeat floor")
    ticks = [_logit(p) for p in _PROBABILITY_TICKS]
    labels = [f"{p:g}" for p in _PROBABILITY_TICKS]
    axes.set_xticks(ticks, labels)
    axes.set_yticks(ticks, labels)
    axes.set(
        xlabel="probability under μ",
        ylabel="probability under π",
        xlim=(-edge - 0.3, edge + 0.3),
        ylim=(-edge - 0.3, edge + 0.3),
    )
    return f"{len(scatter.x):,} of {scatter.n_total:,} sampled tokens; on the diagonal both sides agree."


def _logits(probabilities: Iterable[float]) -> list[float]:
    return [_logit(min(max(p, _LEAST_PROBABILITY), 1 - _LEAST_PROBABILITY)) for p in probabilities]


def _logit(p: float) -> float:
    return math.log(p / (1 - p))


def _draw_points(axes: Axes, x: Sequence[float], y: Sequence[float], color: str, label: str) -> None:
    """All points as one path of dots: a marker each would make the page three times as large."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    finite = [(a, b) for a, b in zip(x, y, strict=True) if math.isfinite(a) and math.isfinite(b)]
    if finite:
        # A line from a point to itself, with round ends, is a dot.
        dots = Path([point for point in finite for _ in "ML"], [Path.MOVETO, Path.LINETO] * len(finite))
        style = {"fill": False, "linewidth": 3, "alpha": 0.6, "capstyle": "round"}
        axes.add_patch(PathPatch(dots, edgecolor=color, **style))
        axes.autoscale_view()
        axes.plot([], [], color=color, linewidth=0, marker="o", markersize=4, label=label)  # for the legend


def _tv_by_position(axes: Axes, report: Report) -> str | None:
    bins = report.figures.tv_by_position
    if not any(each.max > 0 for each in bins):
        return None
    middle = [(each.low + each.high) / 2 for each in bins]
    curves: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("max", "max", {"color": SECOND, "linewidth": 0, "marker": "o", "markersize": 3}),
        ("p99", "p99", {"color": SERIES, "linewidth": 1}),
        ("mean", "mean", {"color": SERIES, "linewidth": 2.2}),
        ("floor_mean", "floor, mean", {"color": FLOOR, "linewidth": 1.4, "dashes": (4, 2)}),
    )
    for name, label, style in curves:
        seen = [(x, getattr(each, name)) for x, each in zip(middle, bins, strict=True) if getattr(each, name)]
        if seen:
            axes.plot(*zip(*seen, strict=True), label=label, **style)
    axes.set(yscale="log", xlabel="position in the response", ylabel="TV")
    _count_ticks(axes.xaxis)
    low, high = axes.get_ylim()
    axes.set_ylim(10.0 ** math.floor(math.log10(low)), 10.0 ** math.ceil(math.log10(high)))  # at least one decade
    _log_ticks(axes.yaxis, *axes.get_ylim())
    first, last = bins[0], bins[-1]
    return f"Mean TV {number(first.mean)} at the first positions, {number(last.mean)} at the last."


def _log_ratio_by_length(axes: Axes, report: Report) -> str | None:
    scatter = report.figures.log_ratio_by_length
    if scatter is None or not scatter.x:
        return None
    axes.axhline(0, color=INK, linewidth=0.8, zorder=0.9)
    _draw_points(axes, scatter.x, scatter.y, SERIES, "μ against π")
    if scatter.floor_y is not None:
        _draw_points(axes, scatter.x, scatter.floor_y, FLOOR, "repeat floor")
    axes.set(xlabel="tokens in the response", ylabel="log ρ(y)")
    _count_ticks(axes.xaxis)
    return f"{len(scatter.x):,} of {scatter.n_total:,} responses."


def _count_ticks(axis: Axis) -> None:
    """Whole numbers: there is no token 28.5."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(6, integer=True))


def _log_ticks(axis: Axis, low: float, high: float) -> None:
    """At most six powers of ten, written as a person would."""
    powers = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
    ticks = [10.0**power for power in powers[:: math.ceil(len(powers) / 6) or 1]]
    axis.set_ticks(ticks, labels=[_short(tick) for tick in ticks])


def _short(value: float) -> str:
    return f"{value:g}" if 1e-3 <= value < 1e5 else f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")


_CHARTS: dict[str, tuple[str, str, Callable[[Axes, Report], str | None]]] = {
    "exceedance": (
        "How often, and how far",
        "Share of tokens, and of prompts by their worst token, whose TV is larger than τ. "
        "The band, and beyond the last token the thin line, is the confidence limit; without one, nothing is known "
        "from above.",
        _exceedance,
    ),
    "ratios": (
        "Token ratios",
        "Counts on a log axis, so that single tokens in the tails are seen. Everything at 1 would be agreement.",
        _ratio_histogram,
    ),
    "probabilities": (
        "Probability of the sampled token",
        "Logit axes, so that agreement near 0 and near 1 is seen alike; what lies beyond 0.0001 or 0.9999 is drawn "
        "on the edge. On the diagonal both sides agree.",
        _probabilities,
    ),
    "positions": (
        "TV by position",
        "A rise along the response means that the difference feeds on itself.",
        _tv_by_position,
    ),
    "lengths": (
        "Log ratio of whole responses",
        "Token differences add up: the longer the response, the farther its importance weight is from 1.",
        _log_ratio_by_length,
    ),
}
