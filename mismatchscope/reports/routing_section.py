"""Which experts both sides choose, layer by layer: the table under that of a probe's cells, and its picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..measures.results import Interval
from ..measures.routing_results import LayerRouting, Routing
from .charts import Chart
from .logs.section import Section, interval_text
from .svg import FLOOR, INK, SECOND, SERIES, STYLE, inline_svg
from .text import count, number, share

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .pair_fields import Probe

_HEADER = (
    "layer",
    "same experts",
    "margin where they differ",
    "margin elsewhere",
    "logits differ by",
    "weights differ by",
    "same slots",
    "overlap",
)
_WIDTH, _ROW, _MARGIN, _LABELS = 400, 22, 42, 142  # of the view box
_HEIGHT = 130
_CAPTION = (
    "Above, the share of states at which a layer's experts differ, with its interval. In the middle, the median "
    "distance in logits between the last expert that is chosen and the first that is not, where the choices differ "
    "and elsewhere. Below, mean TV by whether the choices at a state differ."
)


def layers_section(routing: Routing) -> Section:
    note = (
        f"of {count(routing.tokens, 'state')}, {routing.chosen} of {routing.experts} experts; margins and "
        "differences in logits are medians"
    )
    return Section("experts by layer", note, (), _HEADER, tuple(map(_row, routing.layers)))


def _row(layer: LayerRouting) -> tuple[str, ...]:
    return (
        str(layer.layer),
        _shares(layer.same_set),
        number(layer.margin_flipped),
        number(layer.margin_same),
        number(layer.logit_difference),
        interval_text(layer.weight_difference),
        share(_short(layer.same_slots.value)),
        share(_short(layer.jaccard.value)),
    )


def _shares(interval: Interval) -> str:
    value, low, high = map(_short, (interval.value, interval.low, interval.high))
    return share(value) if low is None or high is None else f"{share(value)} [{share(low)}, {share(high)}]"


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def routing_chart(probe: Probe) -> Chart | None:
    """Flips and margins by layer, and mean TV by group; None for a probe without routing."""
    routing = probe.routing
    if routing is None:
        return None
    import matplotlib
    from matplotlib.figure import Figure

    groups = [
        ("differ here", routing.tv_flipped, SECOND),
        ("same here", routing.tv_same, SERIES),
        ("same so far", routing.tv_untouched, FLOOR),
    ]
    groups = [group for group in groups if group[1].value is not None]
    last = _MARGIN + _ROW * max(len(groups), 1)
    height = 2 * _HEIGHT + last
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(_WIDTH / 72, height / 72), dpi=72)
        left, wide = 62 / _WIDTH, (_WIDTH - 62 - 14) / _WIDTH
        top = figure.add_axes((left, (last + _HEIGHT + 34) / height, wide, (_HEIGHT - 40) / height))
        middle = figure.add_axes((left, (last + 34) / height, wide, (_HEIGHT - 44) / height))
        box = (_LABELS / _WIDTH, _MARGIN / height, (_WIDTH - _LABELS - 14) / _WIDTH, (last - _MARGIN) / height)
        _draw_flips(top, routing.layers)
        _draw_margins(middle, routing.layers)
        _draw_groups(figure.add_axes(box), groups)
        title = "Where the sides choose other experts"
        described = f"{share(routing.flipped.value)} of {count(routing.tokens, 'state')} have other experts."
        return Chart("routing", title, _CAPTION, inline_svg(figure, "routing", title, described))


def _draw_flips(axes: Axes, layers: list[LayerRouting]) -> None:
    for layer in layers:
        same = layer.same_set
        if same.value is None:
            continue
        low, high = (same.value if end is None else end for end in (same.low, same.high))
        axes.plot([layer.layer] * 2, [100 * (1 - high), 100 * (1 - low)], color=SERIES, linewidth=2.2)
        axes.plot(layer.layer, 100 * (1 - same.value), color=SERIES, marker="o", markersize=5, linewidth=0)
    axes.set(ylabel="differ, %", ylim=(0, None))
    _number_layers(axes, layers)


def _draw_margins(axes: Axes, layers: list[LayerRouting]) -> None:
    drawn = False
    for name, color, label in (
        ("margin_same", SERIES, "same experts"),
        ("margin_flipped", SECOND, "other experts"),
        ("logit_difference", INK, "Δ logits"),
    ):
        points = [(layer.layer, value) for layer in layers if (value := getattr(layer, name))]
        if points:
            axes.plot(*zip(*points, strict=True), color=color, marker="o", markersize=4, linewidth=1, label=label)
            drawn = True
    axes.set(ylabel="margin", xlabel="layer")
    if drawn:
        axes.set_yscale("log")
        axes.minorticks_off()
        axes.legend(loc="lower left", bbox_to_anchor=(0, 0.96), ncols=3, columnspacing=0.9, handlelength=0.9)
    _number_layers(axes, layers)


def _number_layers(axes: Axes, layers: list[LayerRouting]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(layers[0].layer - 0.5, layers[-1].layer + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))


def _draw_groups(axes: Axes, groups: list[tuple[str, Interval, str]]) -> None:
    for row, (_, mean, color) in enumerate(groups):
        value = mean.value or 0.0
        ends = [value if end is None else end for end in (mean.low, mean.high)]
        axes.plot(ends, [row, row], color=color, linewidth=2.2, solid_capstyle="round")
        axes.plot(value, row, color=color, marker="o", markersize=6, linewidth=0, clip_on=False)
    labels = [f"{label}, n {mean.n:,}" for label, mean, _ in groups]
    axes.set(xlabel="mean TV", xlim=(0, None), ylim=(max(len(groups), 1) - 0.5, -0.5))
    axes.set_yticks(range(len(groups)), labels)
    axes.locator_params(axis="x", nbins=4)
