"""How the axes of a log's pictures look."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 400
"""Of the view box; a phone shows it at nearly this size, so text stays legible."""


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
