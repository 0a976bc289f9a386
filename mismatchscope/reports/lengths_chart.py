"""The picture of lengths: how far the policies are apart over the first tokens of responses."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .charts import Chart
from .pair_fields import PrefixMeasures, Probe
from .svg import FLOOR, SECOND, SERIES, STYLE, inline_svg
from .text import count, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _HEIGHT = 400, 280  # of the view box
_CAPTION = (
    "TV between the two distributions of beginnings of responses, with its interval, and the standard deviation of "
    "their log ρ. The dashed line is how that would rise as a random walk."
)


def lengths_chart(probe: Probe) -> Chart | None:
    """Both against the length, on logarithmic axes; None where nothing differs, and for a probe without lengths."""
    rows = [row for row in probe.lengths if row.spread and row.tv.value]
    if len(rows) < 2:
        return None
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(_WIDTH / 72, _HEIGHT / 72), dpi=72)
        _draw(figure.add_axes((0.16, 0.16, 0.81, 0.72)), rows)
        figure.legend(loc="upper left", ncols=3, columnspacing=1.0, handlelength=1.2, handletextpad=0.4)
        name, last = f"lengths-{probe.name}", rows[-1]
        described = f"At {count(last.tokens, 'token')} TV {number(last.tv.value)}, spread {number(last.spread)}."
        return Chart(
            name, "How the gap adds up", _CAPTION, inline_svg(figure, name, "How the gap adds up", described)
        )


def _draw(axes: Axes, rows: list[PrefixMeasures]) -> None:
    tokens = [row.tokens for row in rows]
    tv, spread = [row.tv.value or 0.0 for row in rows], [row.spread or 0.0 for row in rows]
    low = [row.tv.low if row.tv.low else value / 10 for row, value in zip(rows, tv, strict=True)]
    high = [row.tv.high if row.tv.high else value for row, value in zip(rows, tv, strict=True)]
    axes.fill_between(tokens, low, high, color=SERIES, alpha=0.18, linewidth=0)
    axes.plot(tokens, tv, color=SERIES, linewidth=1.8, marker="o", markersize=4, label="TV")
    axes.plot(tokens, spread, color=SECOND, linewidth=1.8, marker="o", markersize=4, label="spread of log ρ")
    walk = [spread[0] * math.sqrt(each / tokens[0]) for each in tokens]
    axes.plot(tokens, walk, color=FLOOR, linewidth=1.2, dashes=(4, 2), label="random walk")
    axes.set(xscale="log", yscale="log", xlabel="first tokens of the response")
    axes.set_xticks(tokens, [f"{each:,}" for each in tokens])
    axes.minorticks_off()
