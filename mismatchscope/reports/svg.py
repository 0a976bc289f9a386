"""From a matplotlib figure to an SVG that can live inside a page: its text is the page's, its colours follow it.

matplotlib writes inline styles, which a strict content security policy blocks, fixed colours, which cannot follow
a dark page, and ids that collide when two figures share a document. All three are rewritten here.
"""

from __future__ import annotations

import io
import os
import re
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.typing import RcKeyType

# Colours that nobody would draw with, standing for those that the page's style sheet gives a meaning.
INK, GRID, SERIES, SECOND, FLOOR = "#010101", "#010102", "#010103", "#010104", "#010105"
_PAGE_COLOR = {
    INK: "currentColor",
    GRID: "var(--grid)",
    SERIES: "var(--series)",
    SECOND: "var(--second)",
    FLOOR: "var(--floor)",
}
# `font` is a shorthand and no presentation attribute; the page sets the family, `font-size` is kept.
_DROPPED = {"font-family", "font-stretch", "font-style", "font-variant", "font-weight", "stroke-linejoin"}

# A tenth of a unit is finer than a screen, and the paths are most of the page's size.
_LONG_DECIMAL = re.compile(r"-?\d+\.\d{2,}")

STYLE: dict[RcKeyType, Any] = {
    "svg.fonttype": "none",
    "font.size": 12.5,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 12,
    "path.simplify": False,
}


def inline_svg(figure: Figure, name: str, title: str, description: str) -> str:
    """The figure as an `<svg>` element; `name` makes its ids unique, `title` and `description` are read aloud."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    out = io.StringIO()
    FigureCanvasSVG(figure)
    # The layout is tried out without the metadata, and would take a date of this variable, whatever it holds.
    epoch = os.environ.pop("SOURCE_DATE_EPOCH", None)
    with matplotlib.rc_context({"svg.hashsalt": name}):
        layout = figure.get_layout_engine()
        if layout is not None:
            layout.execute(figure)  # once: to save a figure that has one would do it twice
            figure.set_layout_engine(None)
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    if epoch is not None:
        os.environ["SOURCE_DATE_EPOCH"] = epoch
    root = ElementTree.fromstring(out.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style") or child.get("id") == "patch_1":
                parent.remove(child)
    referenced = {
        value.split("#")[1].rstrip(")") for e in root.iter() for value in e.attrib.values() if "#" in value
    }
    for element in root.iter():
        element.tag = _local(element.tag)
        _rewrite_attributes(element, keep_id=element.get("id") in referenced)
    # The size is the page's business; only the shape is ours.
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.attrib |= {"role": "img", "aria-labelledby": f"{name}-title {name}-desc"}
    for position, (tag, text) in enumerate((("title", title), ("desc", description))):
        element = ElementTree.Element(tag, id=f"{name}-{tag}")
        element.text = text
        root.insert(position, element)
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=True)


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _rewrite_attributes(element: ElementTree.Element, keep_id: bool) -> None:
    attributes = {_local(name): value for name, value in element.attrib.items()}
    for declaration in attributes.pop("style", "").split(";"):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name == "font":
            name, value = "font-size", value.split()[0]
        if name and name not in _DROPPED:
            attributes[name] = value
    if not keep_id:
        attributes.pop("id", None)
    element.attrib.clear()
    for name, value in attributes.items():
        if name in ("d", "x", "y", "transform"):
            value = _LONG_DECIMAL.sub(lambda found: f"{float(found[0]):.1f}", value)
        element.set(name, _PAGE_COLOR.get(value, value))
