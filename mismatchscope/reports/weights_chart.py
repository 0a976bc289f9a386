"""The picture of a stage of weights: which tensors of which layers are not the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .charts import Chart
from .svg import FLOOR, INK, SECOND, SERIES, STYLE, inline_svg
from .text import count, shortened
from .weights_report import WeightsPlace, WeightsStage

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _ROW, _ABOVE, _BELOW, _LETTER = 460, 17, 40, 42, 6.4  # of the view box
_LONGEST = 32  # letters of a label
_CAPTION = (
    "A row is a part of the model, a column a layer; what belongs to no layer is on the left. A small dot is a "
    "part whose tensors are all the same. Of experts that differ in several ways, the mark is that of most."
)


class _Mark(NamedTuple):
    label: str
    kinds: tuple[str, ...]
    marker: str
    color: str
    filled: bool = True


_SAME = _Mark("same", (), ".", FLOOR)
_MARKS = (
    _SAME,
    _Mark("stale", ("stale",), "s", SECOND),
    _Mark("scaled", ("scaled",), "^", SERIES),
    _Mark("low rank added", ("low_rank",), "D", SERIES),
    _Mark("rounded", ("rounded", "eight_bits"), "v", SECOND),
    _Mark("other values", ("values", "shape", "transposed", "tied"), "o", INK),
    _Mark("missing or extra", ("missing", "extra"), "x", INK),
    _Mark("not compared", ("not_compared",), "o", FLOOR, filled=False),
)


def weights_chart(stage: WeightsStage, number: int) -> Chart | None:
    """None where all tensors are the same, or none was compared; `number` tells charts of one page apart."""
    if not any(place.others for place in stage.places):
        return None
    import matplotlib
    from matplotlib.figure import Figure

    parts = list(dict.fromkeys(place.part for place in stage.places))
    size = _ROW * len(parts)
    height = _ABOVE + size + _BELOW
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(_WIDTH / 72, height / 72), dpi=72)
        left = 14 + _LETTER * max(len(shortened(part, _LONGEST)) for part in parts)
        box = (left / _WIDTH, _BELOW / height, (_WIDTH - left - 10) / _WIDTH, size / height)
        axes = figure.add_axes(box)
        used = _draw(axes, stage.places, parts)
        figure.legend(loc="upper left", ncols=min(4, used), columnspacing=0.9, handletextpad=0.1, borderpad=0.1)
        others = sum(sum(place.others.values()) for place in stage.places)
        title = "Which tensors are not the same"
        described = f"{count(others, 'tensor')} of {stage.total:,}: {', '.join(_kinds(stage))}."
        name = f"weights-{number}"
        return Chart(name, title, _CAPTION, inline_svg(figure, name, title, described))


def _draw(axes: Axes, places: list[WeightsPlace], parts: list[str]) -> int:
    """How many kinds of marks were drawn."""
    last = max((place.layer for place in places if place.layer is not None), default=-1)
    outside = any(place.layer is None for place in places)
    used = 0
    for mark in _MARKS:
        points = [
            (-1 if place.layer is None else place.layer, parts.index(place.part))
            for place in places
            if _mark_of(place) is mark
        ]
        if points:
            used += 1
            x, y = zip(*points, strict=True)
            area = 10 if mark is _SAME else 34 if last < 48 else 14
            face = mark.color if mark.filled else "none"
            drawn = axes.scatter(x, y, marker=mark.marker, s=area, color=mark.color, label=mark.label, zorder=3)
            drawn.set(facecolor=face, linewidth=1.2)
    axes.set(xlabel="layer", xlim=(-1.6 if outside else -0.6, last + 0.6), ylim=(len(parts) - 0.5, -0.5))
    axes.set_yticks(range(len(parts)), [shortened(part, _LONGEST) for part in parts])
    every = -(-(last + 1) // 10) or 1
    layers = list(range(0, last + 1, every))
    axes.set_xticks([-1, *layers] if outside else layers, (["none"] if outside else []) + list(map(str, layers)))
    axes.grid(visible=False)
    return used


def _mark_of(place: WeightsPlace) -> _Mark:
    if not place.others:
        return _SAME
    most = max(place.others, key=lambda kind: place.others[kind])
    return next(mark for mark in _MARKS if most in mark.kinds)


def _kinds(stage: WeightsStage) -> list[str]:
    labels = [mark.label for place in stage.places if (mark := _mark_of(place)) is not _SAME]
    return list(dict.fromkeys(labels))
