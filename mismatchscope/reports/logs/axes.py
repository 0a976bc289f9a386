"""How the axes of a log's pictures look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 400
"""Of the view box; a phone shows it at nearly this size, so text stays legible."""

_LEFT, _RIGHT, _TITLE, _BOTTOM = 66, 10, 24, 45
"""Room for the numbers on y, beside the last number on x, for a panel's name, and for x with its name."""


def stacked_panels(heights: Sequence[float], *, above: float = 0) -> tuple[Figure, list[Axes]]:
    """Panels one above the other, which share x, with room `above` for a legend.

    They are placed here: matplotlib's layout engines measure every text, which takes as long as to draw all of it.
    """
    from matplotlib.figure import Figure

    total = above + sum(heights) + len(heights) * _TITLE + _BOTTOM
    figure = Figure(figsize=(WIDTH / 72, total / 72), dpi=72)
    panels: list[Axes] = []
    top = total - above
    for height in heights:
        top -= _TITLE + height
        place = (_LEFT / WIDTH, top / total, (WIDTH - _LEFT - _RIGHT) / WIDTH, height / total)
        panels.append(figure.add_axes(place, sharex=panels[0] if panels else None))
    for panel in panels[:-1]:
        panel.tick_params(labelbottom=False)
    return figure, panels


def name_panel(axes: Axes, label: str) -> None:
    """The name above the panel: on its side a long one would be taller than it. At most four numbers on y."""
    axes.set_title(label, loc="left", fontsize=12, pad=3)
    axes.locator_params(axis="y", nbins=3)
    axes.yaxis.get_offset_text().set_visible(False)
    axes.yaxis.set_major_formatter(lambda value, _: _short(value))


def _short(value: float) -> str:
    if value and abs(value) < 1e-3:
        return f"{value:.3g}".replace("e-0", "e-")
    return f"{value:.4g}"
