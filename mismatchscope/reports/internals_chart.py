"""The picture of a model's inside: the error by layer and position, and beside it what the stages create."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

from ..measures.layer_results import Internals, StageDifference
from .charts import Chart
from .pair_fields import Probe
from .svg import FLOOR, INK, SECOND, SERIES, STYLE, inline_svg
from .text import count, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _ABOVE, _BELOW, _LEFT = 460, 46, 46, 78  # of the view box
_TALLEST, _LEAST, _MOST = 340, 7, 22  # of all rows, and of one
_SHADES = 8
_CAPTION = (
    "On the left the relative error of the residual stream, from the embedding above to the logits below, by the "
    "position of the token: the darker, the larger. On the right what the stages of each layer create by "
    "themselves, given the same input on both sides, in roundings of the coarser dtype; beyond the dashed line it "
    "is more than rounding."
)
_KINDS = (("attention", SERIES, "o"), ("mlp", SECOND, "s"), ("norm", FLOOR, "|"))


def internals_chart(probe: Probe) -> Chart | None:
    """None for a probe without, and where no stage differs."""
    found = probe.internals
    if found is None or found.first_difference is None or not found.heat:
        return None
    import matplotlib
    from matplotlib.figure import Figure

    rows = len(found.heat)
    size = min(_MOST, max(_LEAST, _TALLEST / rows)) * rows
    height = _ABOVE + size + _BELOW
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(_WIDTH / 72, height / 72), dpi=72)
        created = [stage for stage in found.stages if stage.times_rounding]
        wide = 0.56 if created else 0.78
        box = (_LEFT / _WIDTH, _BELOW / height, wide, size / height)
        _draw_heat(figure, figure.add_axes((box[0], box[1], box[2] - 0.02, box[3])), found)
        if created:
            left = box[0] + wide + 0.02
            _draw_created(figure.add_axes((left, box[1], 0.97 - left, box[3])), found, created)
        title = "Where the two sides come apart"
        described = f"{count(found.same_prefix, 'stage')} with the same values, then {found.first_difference}."
        return Chart("internals", title, _CAPTION, inline_svg(figure, "internals", title, described))


def _draw_heat(figure: Figure, axes: Axes, found: Internals) -> None:
    errors = [error for row in found.heat for error in row.errors if error]
    low, high = math.log10(min(errors)), math.log10(max(errors))
    step = (found.positions[1] if len(found.positions) > 1 else 1) - found.positions[0]
    for place, row in enumerate(found.heat):
        column = 0
        for shade, cells in itertools.groupby(row.errors, key=lambda error: _shade(error, low, high)):
            width = len(list(cells))
            if shade:
                axes.broken_barh(
                    [(column * step, width * step)],
                    (place - 0.5, 1),
                    facecolors=SERIES,
                    alpha=shade / _SHADES,
                    linewidth=0,
                )
            column += width
    axes.set(xlabel="position", xlim=(0, len(found.positions) * step), ylim=(len(found.heat) - 0.5, -0.5))
    every = -(-len(found.heat) // (_TALLEST // 13))
    names = [row.stage if place % every == 0 else "" for place, row in enumerate(found.heat)]
    axes.set_yticks(range(len(names)), names)
    axes.grid(visible=False)
    axes.locator_params(axis="x", nbins=5, integer=True)
    scale = f"{number(min(errors))} (lightest) to {number(max(errors))}"
    figure.text(0.01, 1 - 14 / (figure.get_figheight() * 72), f"relative error, {scale}", fontsize=12, color=INK)


def _shade(error: float | None, low: float, high: float) -> int:
    """From 1, the smallest error, upwards on a logarithmic scale; 0 where there is none."""
    if not error:
        return 0
    part = (math.log10(error) - low) / (high - low) if high > low else 1.0
    return 1 + min(_SHADES - 1, int(part * _SHADES))


def _draw_created(axes: Axes, found: Internals, created: list[StageDifference]) -> None:
    places = {row.stage: place for place, row in enumerate(found.heat)}
    for kind, color, marker in _KINDS:
        points = [
            (stage.times_rounding, places[layer])
            for stage in created
            if _kind(stage.stage) == kind and (layer := _row_of(stage.stage)) in places
        ]
        if points:
            x, y = zip(*points, strict=True)
            axes.scatter(x, y, color=color, marker=marker, s=22, label=kind, zorder=3, linewidths=1.2)
    axes.axvline(max(stage.limit or 1.0 for stage in created), color=INK, linewidth=0.9, linestyle=(0, (3, 3)))
    axes.set(xscale="log", xlabel="roundings created", ylim=(len(found.heat) - 0.5, -0.5))
    axes.set_yticks([])
    axes.minorticks_off()
    values = [stage.times_rounding for stage in created if stage.times_rounding]
    low, high = min(*values, 1.0) * 0.7, max(*values, *(stage.limit or 1.0 for stage in created)) * 1.5
    axes.set_xlim(low, high)
    ticks = [10.0**power for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
    ticks = ticks[:: max(1, len(ticks) // 3)]
    axes.set_xticks(ticks, [number(tick) for tick in ticks])
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, columnspacing=0.6, handletextpad=0.1)


def _kind(stage: str) -> str:
    part = stage.rpartition(".")[2]
    return "norm" if part.endswith("norm") else "mlp" if part in ("logits", "mlp") else part


def _row_of(stage: str) -> str:
    """The row of the heat map that a stage belongs to."""
    return stage if stage in ("norm", "logits") else stage.rpartition(".")[0]
