"""The report of the probe `weights` as one self-contained page, in the style of all others."""

from __future__ import annotations

from .charts import Chart
from .page import render_page
from .weights_chart import weights_chart
from .weights_report import WeightsReport
from .weights_text import BADGE, SHOWN_ON_A_PAGE, stage_title, weights_sections


def render(report: WeightsReport) -> str:
    """The report as an HTML document. Raises `MissingDependencyError` without jinja2 or matplotlib."""
    badge, tone = BADGE[report.verdict]
    return render_page(
        "weights.html.j2",
        {},
        report=report,
        badge=badge,
        tone=tone,
        sections=list(weights_sections(report, shown=SHOWN_ON_A_PAGE)),
        pictures=_pictures(report),
    )


def _pictures(report: WeightsReport) -> dict[str, list[Chart]]:
    """The chart below the section of each title."""
    try:
        from markupsafe import Markup
    except ImportError:  # `render_page` says what is missing
        return {}
    drawn = [(stage_title(report, stage), weights_chart(stage, n)) for n, stage in enumerate(report.stages)]
    return {title: [chart._replace(svg=Markup(chart.svg))] for title, chart in drawn if chart is not None}
