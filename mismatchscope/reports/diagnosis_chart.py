"""The picture of a finding: the plot in which one sees it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..measures.diagnosis_results import DiagnosisPicture
from .charts import Chart
from .document import Report
from .svg import FLOOR, SECOND, SERIES, STYLE, inline_svg
from .text import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _HEIGHT = 560, 260  # of the view box
_COLORS = (SECOND, SERIES)
_TITLES = {
    "positions": "The gap over positions",
    "log_odds": "The difference of the log-odds over the log-odds",
    "sequences": "The gap of each sequence",
    "groups": "The gap of each group",
    "values": "The two log-probs of tokens",
}
_CAPTIONS = {
    "positions": "R is the root mean square of Δ log p / (1 − p) in floors, in groups of as many tokens each.",
    "log_odds": "Flat is no temperature; a slope is one.",
    "sequences": "A sequence that a shift mends falls from one series to the other.",
    "groups": "R of the sequences with each label, in floors.",
    "values": "On the diagonal both sides agree.",
}
_LOGARITHMIC = ("positions", "groups", "sequences")


def diagnosis_charts(report: Report) -> Iterator[Chart]:
    """One a picture of the answer that has points."""
    answer = report.diagnosis_answer
    for number, picture in enumerate(() if answer is None else answer.pictures):
        if any(y is not None for _, _, values in picture.series for y in values):
            yield _chart(picture, number)


def _chart(picture: DiagnosisPicture, number: int) -> Chart:
    name, title = f"diagnosis-{number}", _TITLES[picture.kind]
    return Chart(name, title, _CAPTIONS[picture.kind], picture_svg(picture, name, title))


def picture_svg(picture: DiagnosisPicture, name: str, title: str) -> str:
    """A picture that has points, as an `<svg>` element whose ids begin with `name`."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(_WIDTH / 72, _HEIGHT / 72), dpi=72)
        axes = figure.add_axes((0.13, 0.19, 0.84, 0.68))
        _draw(axes, picture)
        if len(picture.series) > 1:
            figure.legend(
                loc="upper left", ncols=len(picture.series), columnspacing=1.0, handletextpad=0.4, markerscale=2
            )
        marks = "".join(f" {label} at {place:,.0f}." for label, place in picture.marks)
        return inline_svg(figure, name, title, f"{picture.y_label} over {picture.x_label}.{marks}")


def _draw(axes: Axes, picture: DiagnosisPicture) -> None:
    joined = picture.kind in ("positions", "log_odds")
    values = [b for _, _, y in picture.series for b in y if b is not None]
    logarithmic = picture.kind in _LOGARITHMIC and min(values) > 0 and max(values) > 20 * min(values)
    for (label, x, y), color in zip(picture.series, _COLORS[-len(picture.series) :] * 4, strict=False):
        points = [(a, b) for a, b in zip(x, y, strict=True) if a is not None and b is not None]
        if picture.kind == "groups":
            base = min(values) if logarithmic else 0.0
            axes.vlines([a for a, _ in points], base, [b for _, b in points], color=color, linewidth=6)
        axes.plot(
            [a for a, _ in points],
            [b for _, b in points],
            color=color,
            label=label,
            linewidth=1.8 if joined else 0,
            marker="o",
            markersize=4 if joined or len(points) < 40 else 2.5,
        )
    if logarithmic:
        axes.set_yscale("log")
        axes.minorticks_off()
    if picture.floor is not None:
        axes.axhline(picture.floor, color=FLOOR, linewidth=1.2, dashes=(4, 2))
    if picture.kind == "log_odds":
        axes.axhline(0, color=FLOOR, linewidth=1.2, dashes=(4, 2))
    if picture.kind == "values":
        low = min(values)
        axes.plot([low, 0], [low, 0], color=FLOOR, linewidth=1.2, dashes=(4, 2))
    for _, place in picture.marks:
        axes.axvline(place, color=FLOOR, linewidth=1.2, dashes=(2, 2))
    if picture.labels:
        axes.set_xticks(range(len(picture.labels)), [shortened(label, 14) for label in picture.labels])
    axes.set(xlabel=picture.x_label, ylabel=picture.y_label)
