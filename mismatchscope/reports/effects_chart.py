"""The picture of shares: how the whole gap is made, change by change, down to what is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .charts import Chart
from .pair_fields import Probe, ProbeEffect
from .svg import FLOOR, INK, SECOND, SERIES, STYLE, inline_svg
from .text import number, share

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _ROW, _MARGIN, _LABELS = 400, 24, 50, 138  # of the view box
_CAPTION = (
    "From right to left, each bar is what a change takes away, averaged over all orders of the changes, with its "
    "interval; one that points to the right adds to the gap. The last bar is what is left with every change made."
)


def effects_chart(probe: Probe) -> Chart | None:
    """A waterfall of the effects; None for a probe without."""
    if not probe.effects:
        return None
    import matplotlib
    from matplotlib.figure import Figure

    rows = len(probe.effects) + 1
    height = _MARGIN + _ROW * rows
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(_WIDTH / 72, height / 72), dpi=72)
        box = (_LABELS / _WIDTH, 42 / height, (_WIDTH - _LABELS - 14) / _WIDTH, _ROW * rows / height)
        _draw(figure.add_axes(box), probe.effects)
        name = f"effects-{probe.name}"
        described = "; ".join(
            f"{each.change} {number(each.tv.value)}, {share(each.share)}" for each in probe.effects
        )
        return Chart(
            name, "What makes the gap", _CAPTION, inline_svg(figure, name, "What makes the gap", described)
        )


def _draw(axes: Axes, effects: list[ProbeEffect]) -> None:
    whole = sum(each.tv.value or 0.0 for each in effects)
    axes.barh(0, whole, color=INK, height=0.55, alpha=0.35, linewidth=0)
    end = whole
    for row, effect in enumerate(effects, start=1):
        value = effect.tv.value or 0.0
        color = FLOOR if effect is effects[-1] else SERIES if value >= 0 else SECOND
        axes.barh(row, -value, left=end, color=color, height=0.55, linewidth=0)
        if effect.tv.low is not None and effect.tv.high is not None:
            ends = [end - effect.tv.low, end - effect.tv.high]
            axes.plot(ends, [row, row], color=INK, linewidth=1.2)
        axes.plot([end, end], [row - 1, row], color=INK, linewidth=0.6)
        end -= value
    axes.set(xlabel="mean TV", ylim=(len(effects) + 0.5, -0.5), xlim=(0, None))
    axes.set_yticks(range(len(effects) + 1), ["the whole gap", *(each.change for each in effects)])
    axes.locator_params(axis="x", nbins=4)
    axes.grid(visible=False, axis="y")
