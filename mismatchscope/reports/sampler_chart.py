"""The picture of a sampler: how far each transform takes it from the trainer, and what a replay leaves."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .charts import Chart
from .pair_fields import Probe
from .sampler_fields import SamplerStep
from .sampler_table import name_of
from .svg import FLOOR, INK, SECOND, SERIES, STYLE, inline_svg
from .text import number, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _ROW, _MARGIN, _LABELS, _LETTER = 400, 19, 66, 100, 6.4  # of the view box
_LONGEST = 34  # letters of a label
_CAPTION = (
    "Mean TV from the sampler, with its transforms up to this one, to the trainer, with its interval; what that "
    "would be with perfect numerics; and what is left where the trainer replays the sampler's temperature, "
    "penalties and kept ids. The left edge is 0."
)
_LEAST = 1e-8  # TV of float32 log-probs is no less


def sampler_chart(probe: Probe) -> Chart | None:
    """One row a step, TV from left to right; None for a probe without, and where nothing differs."""
    values = [value for step in probe.transforms for value in _values(step) if value and value > _LEAST]
    if not values:
        return None
    import matplotlib
    from matplotlib.figure import Figure

    steps = probe.transforms
    height = _MARGIN + _ROW * len(steps)
    labels = [shortened(name_of(step), _LONGEST) for step in steps]
    left = max(_LABELS, 10 + _LETTER * max(map(len, labels))) / _WIDTH
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(_WIDTH / 72, height / 72), dpi=72)
        axes = figure.add_axes((left, 42 / height, 0.97 - left, _ROW * len(steps) / height))
        _draw(axes, steps, 10.0 ** math.floor(math.log10(min(values))))
        axes.set_yticks(range(len(steps)), labels)
        figure.legend(loc="upper left", ncols=3, columnspacing=1.0, handletextpad=0.3)
        name, last = f"sampler-{probe.name}", next(step for step in reversed(steps) if not step.tried)
        described = (
            f"The run's own sampler: TV {number(last.tv.value)}, {number(last.floor.value)} of it by settings."
        )
        return Chart(
            name,
            "What each transform does",
            _CAPTION,
            inline_svg(figure, name, "What each transform does", described),
        )


def _values(step: SamplerStep) -> tuple[float | None, ...]:
    return step.tv.low, step.tv.value, step.floor.value, step.replayed.value


def _draw(axes: Axes, steps: list[SamplerStep], least: float) -> None:
    def at(value: float | None) -> float:
        return max(value or 0.0, least)

    rows = range(len(steps))
    for row, step in zip(rows, steps, strict=True):
        axes.plot([at(step.tv.low), at(step.tv.high)], [row, row], color=INK, linewidth=1.2, zorder=2)
    axes.scatter(
        [at(step.floor.value) for step in steps], rows, marker="|", s=90, color=FLOOR, label="perfect numerics"
    )
    axes.scatter([at(step.tv.value) for step in steps], rows, s=22, color=SERIES, label="mean TV", zorder=3)
    axes.scatter(
        [at(step.replayed.value) for step in steps],
        rows,
        s=24,
        facecolors="none",
        edgecolors=SECOND,
        linewidths=1.4,
        label="replayed",
        zorder=3,
    )
    axes.set(xscale="log", xlabel="TV", ylim=(len(steps) - 0.5, -0.5))
    axes.set_xlim(least / 1.3, None)
