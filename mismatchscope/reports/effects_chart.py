"""The picture of shares: how the whole gap is made, change by change, down to what is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .charts import Chart
from .pair_fields import Probe, ProbeEffect, ProbeInteraction
from .probe_section import told_apart
from .svg import FLOOR, INK, SECOND, SERIES, STYLE, inline_svg
from .text import number, share, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _ROW, _MARGIN, _LABELS, _LETTER = 400, 24, 50, 138, 6.6  # of the view box
_CAPTION = (
    "From right to left, each bar is what a change takes away, averaged over the settings of the others, with its "
    "interval; one that points to the right adds to the gap. The rest is what is left with every change made."
)
_TOGETHER = (
    " Below the line, from 0: what two changes take away together beyond what each does alone, where that is told "
    "from nothing; it is in no bar above."
)
_MOST, _LONGEST = 6, 30
"""Interactions that are drawn, and letters of a label."""


def effects_chart(probe: Probe) -> Chart | None:
    """A waterfall of the effects; None for a probe without."""
    if not probe.effects:
        return None
    import matplotlib
    from matplotlib.figure import Figure

    together = told_apart(probe)[:_MOST]
    rows = len(probe.effects) + 1 + len(together)
    height = _MARGIN + _ROW * rows
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(_WIDTH / 72, height / 72), dpi=72)
        names = [*(each.change for each in probe.effects), *(each.changes for each in together)]
        labels = max(_LABELS, 10 + _LETTER * min(_LONGEST, max(map(len, names))))
        box = (labels / _WIDTH, 42 / height, (_WIDTH - labels - 14) / _WIDTH, _ROW * rows / height)
        _draw(figure.add_axes(box), probe.effects, together)
        name = f"effects-{probe.name}"
        described = "; ".join(
            f"{each.change} {number(each.tv.value)}, {share(each.share)}" for each in probe.effects
        )
        svg = inline_svg(figure, name, "What makes the gap", described)
        return Chart(name, "What makes the gap", _CAPTION + _TOGETHER * bool(together), svg)


def _draw(axes: Axes, effects: list[ProbeEffect], together: list[ProbeInteraction]) -> None:
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
    for row, each in enumerate(together, start=len(effects) + 1):
        value, ends = each.tv.value or 0.0, [each.tv.low or 0.0, each.tv.high or 0.0]
        axes.barh(row, value, color=SERIES if value >= 0 else SECOND, height=0.35, linewidth=0)
        axes.plot(ends, [row, row], color=INK, linewidth=1.2)
    if together:
        axes.axhline(len(effects) + 0.5, color=INK, linewidth=0.6)
    least = min([0.0, *(each.tv.low or 0.0 for each in together)])
    axes.set(xlabel="mean TV", ylim=(len(effects) + len(together) + 0.5, -0.5), xlim=(1.05 * least, None))
    labels = [*(each.change for each in effects), *(each.changes for each in together)]
    axes.set_yticks(range(len(labels) + 1), ["the whole gap", *(shortened(label, _LONGEST) for label in labels)])
    axes.locator_params(axis="x", nbins=4)
    axes.grid(visible=False, axis="y")
