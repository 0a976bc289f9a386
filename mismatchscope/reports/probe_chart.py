"""The picture of a probe: how far each setting is from what it is held against."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from .charts import Chart
from .pair_fields import Probe
from .probe_section import computation_in, tells_cells_apart
from .svg import INK, SECOND, SERIES, STYLE, inline_svg
from .text import count, number, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _ROW, _MARGIN, _LABELS, _LETTER = 400, 17, 62, 128, 6.6  # of the view box
_LONGEST = 30  # letters of a label
_CAPTION = (
    "A dot is a mean TV with its interval, a ring the largest TV that was seen. What has the same bits as what it "
    "is held against lies on the left edge."
)
_COLORS = (SERIES, SECOND, INK)


class _Place(NamedTuple):
    label: str
    mean: float | None
    low: float | None
    high: float | None
    most: float | None
    color: str


def probe_chart(probe: Probe) -> Chart | None:
    """One row a cell, TV from left to right; None where no two settings differ in a bit."""
    import matplotlib
    from matplotlib.figure import Figure

    places = list(_places(probe))
    values = [value for place in places for value in (place.low, place.mean, place.most) if value]
    if not values:
        return None
    with matplotlib.rc_context(STYLE):
        height = _MARGIN + _ROW * len(places)
        labels = max(_LABELS, 10 + _LETTER * max(len(place.label) for place in places))
        figure = Figure(figsize=(_WIDTH / 72, height / 72), dpi=72)
        box = (labels / _WIDTH, 42 / height, (_WIDTH - labels - 12) / _WIDTH, _ROW * len(places) / height)
        axes = figure.add_axes(box)
        _draw(axes, places, least=10.0 ** math.floor(math.log10(min(values))))
        _name_colors(axes, probe)
        name = f"probe-{probe.name}"
        farthest = max(places, key=lambda place: place.most or 0.0)
        described = (
            f"{count(len(places), 'comparison')}; the largest TV is {number(farthest.most)}, {farthest.label}."
        )
        return Chart(name, "How far each setting is", _CAPTION, inline_svg(figure, name, probe.factor, described))


def _places(probe: Probe) -> Iterator[_Place]:
    kinds = [computation_in(probe, cell) for cell in probe.cells]
    alone = len({(cell.setting, kind) for cell, kind in zip(probe.cells, kinds, strict=True)}) == len(probe.cells)
    colors = dict(zip(dict.fromkeys(kinds), _COLORS * len(kinds), strict=False))
    for cell, kind in zip(probe.cells, kinds, strict=True):
        if cell.pair is not None and cell.third is None:  # those with a third are every two settings
            mean = cell.pair.alpha.mean
            most = cell.pair.alpha.observed_max
            label = cell.setting if alone else f"{cell.setting} against {cell.against}"
            color = SERIES if tells_cells_apart(probe) else colors[kind]
            yield _Place(shortened(label, _LONGEST), mean.value, mean.low, mean.high, most, color)


def _draw(axes: Axes, places: list[_Place], least: float) -> None:
    for row, place in enumerate(places):
        edge = [max(value or 0.0, least) for value in (place.low, place.mean, place.high, place.most)]
        axes.plot([edge[0], edge[2]], [row, row], color=place.color, linewidth=2.2, solid_capstyle="round")
        if place.mean is not None:
            axes.plot(edge[1], row, color=place.color, marker="o", markersize=6, linewidth=0, clip_on=False)
        if place.most:
            axes.plot(edge[3], row, color=place.color, marker="o", markersize=5, linewidth=0, fillstyle="none")
    axes.set(xscale="log", xlabel="TV", xlim=(least, None), ylim=(len(places) - 0.5, -0.5))
    axes.set_yticks(range(len(places)), [place.label for place in places])
    axes.minorticks_off()


def _name_colors(axes: Axes, probe: Probe) -> None:
    kinds = list(dict.fromkeys(computation_in(probe, cell) for cell in probe.cells))
    if len(kinds) > 1 and not tells_cells_apart(probe):
        for kind, color in zip(kinds, _COLORS * len(kinds), strict=False):
            axes.plot([], [], color=color, linewidth=0, marker="o", label=kind)
        axes.figure.legend(loc="upper left", ncols=len(kinds), columnspacing=1.0, handletextpad=0.3)
