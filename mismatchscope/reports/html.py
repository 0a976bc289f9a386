"""The report as one self-contained page: no script, nothing fetched, readable on a phone, in print and in the dark.

What the template shows is made printable and escaped by the environment, wherever it comes from. The content
security policy forbids everything but the page's own style sheet, by its hash, so that even text that slipped
through could do nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from ..errors import MissingDependencyError
from ..measures.results import Interval, Statistic
from .baseline import PAIRED_MEANING, VERDICT_TONE, compared_engines, pair_rows, paired_rows
from .bounds import bound_rows
from .charts import Chart, draw_charts
from .diagnosis_chart import diagnosis_charts
from .diagnosis_section import TITLE as DIAGNOSIS
from .document import Report
from .effects_chart import effects_chart
from .fields import flatten
from .glossary import ALPHA, BOUNDS, EVIDENCE, POLICY, Measure
from .internals_chart import internals_chart
from .lengths_chart import lengths_chart
from .log_sections import RESPONSES, log_sections, other_alarms
from .logs.charts import draw_log_charts
from .logs.places import places
from .logs.strips import strips
from .moved_token import moved_most
from .page import render_page
from .probe_chart import probe_chart
from .probe_section import title_of
from .reading import READING, reading_rows, sources
from .routing_section import routing_chart
from .sampler_chart import sampler_chart
from .sides import model_name
from .single_numbers import scalars
from .summary import (
    DIFFERENCES,
    alpha_rows,
    causes,
    floor_rows,
    headline,
    interval_note,
    not_compared,
    sequence_statistics,
    size_remark,
    three_policies,
    token_statistics,
)
from .text import UNKNOWN, count, estimate, number, one_line

_Entry = tuple[Measure, Statistic]


class Card(NamedTuple):
    """A key figure at the top of the page. `value` and `interval` together are one estimate."""

    label: str
    value: str
    interval: str
    note: str


_PROBE_CHARTS = (effects_chart, lengths_chart, sampler_chart, routing_chart, internals_chart, probe_chart)
"""The first that has something to show is a probe's picture."""


def render(report: Report) -> str:
    """The report as an HTML document. Raises `MissingDependencyError` without jinja2 or matplotlib."""
    try:
        from markupsafe import Markup
    except ImportError:
        raise MissingDependencyError("jinja2", "report", "An HTML report") from None
    drawn = {chart.name: chart._replace(svg=Markup(chart.svg)) for chart in draw_charts(report)}
    return render_page(
        "report.html.j2",
        {"moved_most": moved_most, "tv_level": _tv_level},
        report=report,
        head=headline(report),
        not_compared=not_compared(report),
        model=model_name(report),
        reading=reading_rows(report),
        reading_name=READING,
        sources=sources(report),
        cards=list(_cards(report)),
        alpha_name=ALPHA["alpha1"],
        alpha=alpha_rows(report, report.alpha1),
        floors=floor_rows(report),
        other_alphas=[(symbol, text, alpha_rows(report, a)) for symbol, text, a in three_policies(report)[1:]],
        tables=[
            ("Per token", *_short_and_rest(token_statistics, report), scalars(report.token)),
            ("Per response", *_short_and_rest(sequence_statistics, report), scalars(report.sequence)),
        ],
        charts=drawn,
        alarms=other_alarms(report),
        log=_log(report),
        bounds=bound_rows(report),
        bounds_name=BOUNDS,
        causes=causes(report.provenance.difference),
        differences_name=DIFFERENCES,
        size_remark=size_remark(report.provenance.size, report.provenance.difference),
        versions=_versions(report),
        provenance=_provenance(report),
        evidence=EVIDENCE[report.evidence],
        policy=POLICY[report.policy],
    )


def _short_and_rest(statistics: Callable[..., list[_Entry]], report: Report) -> tuple[list[_Entry], list[_Entry]]:
    short = statistics(report, short=True)
    return short, [entry for entry in statistics(report) if entry not in short]


def _cards(report: Report) -> Iterable[Card]:
    alpha, floor = report.alpha1, report.floor
    states = count(report.counts.tokens, "visited state")
    yield _mean_card("mean TV", alpha.mean)
    yield Card("α₁ is at least", number(alpha.observed_max), "", f"observed maximum of {states}, certified")
    if floor.excess is not None:
        yield _mean_card("above the repeat floor", floor.excess)
    else:
        yield Card("above the repeat floor", UNKNOWN, "", "no repeat was run, so noise is not known")
    if kl := report.token.kl:
        value, interval = _split(estimate(kl.mean, kl.low, kl.high))
        yield Card("KL(μ‖π) per token", value, interval, f"nats; {kl.estimator}")
    if (sequence := report.sequence).ess_fraction is not None:
        low, high = sequence.ess_fraction_low, sequence.ess_fraction_high
        value, _, interval = estimate(sequence.ess_fraction, low, high).partition(" ")
        responses = count(report.counts.sequences, "response")
        note = f"says nothing: {sequence.weights_reason}" if sequence.weights_reason else responses
        yield Card("ESS / N of responses", value, interval, note)


def _mean_card(label: str, mean: Interval) -> Card:
    return Card(label, *_split(estimate(mean.value, mean.low, mean.high)), interval_note(mean))


def _split(estimated: str) -> tuple[str, str]:
    """The value and its interval."""
    value, bracket, ends = estimated.partition(" [")
    return value, f"[{ends}" if bracket else ""


def _versions(report: Report) -> dict[str, Any] | None:
    """What the section of a version audit shows; None without a baseline."""
    baseline = report.baseline
    if baseline is None:
        return None
    return {
        "tone": VERDICT_TONE[baseline.verdict],
        "engines": compared_engines(report, baseline),
        "confidence": report.alpha1.mean.confidence,
        "pairs": pair_rows(report, baseline),
        "paired": paired_rows(baseline),
        "paired_meaning": PAIRED_MEANING,
        "causes": causes(baseline.difference),
        "size_remark": size_remark(baseline.size, baseline.difference),
    }


def _log(report: Report) -> dict[str, Any]:
    """What the sections of a log or a probe show; all empty without one."""
    from markupsafe import Markup

    drawn = [chart._replace(svg=Markup(chart.svg)) for chart in draw_log_charts(report)]
    sections = [each for each in log_sections(report, short=False) if each.title != RESPONSES]
    native = {f"what {metric.trainer} logs" for metric in report.native_metrics}
    return {
        "sections": [each for each in sections if each.title not in native],
        "native_metrics": [each for each in sections if each.title in native],
        "places": {f"by {groups.by}": places(groups) for groups in report.groups},
        "strips": strips(report),
        "pictures": _pictures(report, drawn),
        "corrections": [chart for chart in drawn if chart.name.startswith("correction-")],
    }


def _pictures(report: Report, drawn: list[Chart]) -> dict[str, list[Chart]]:
    """The charts below the section of each title."""
    from markupsafe import Markup

    shown = [chart._replace(svg=Markup(chart.svg)) for chart in diagnosis_charts(report)]
    pictures = {"trend": [chart for chart in drawn if chart.name.startswith("trend-")], DIAGNOSIS: shown}
    if report.probe is not None:
        chart = next(filter(None, (draw(report.probe) for draw in _PROBE_CHARTS)), None)
        pictures[title_of(report.probe)] = [chart._replace(svg=Markup(chart.svg))] if chart else []
    return pictures


def _tv_level(tv: float | None) -> int:
    """How strongly a token is coloured: one step a decade from 0.001."""
    return sum(tv >= limit for limit in (0.001, 0.01, 0.1)) if tv is not None else 0


def _provenance(report: Report) -> list[tuple[str, list[str], bool]]:
    """(key, its value on each side, whether μ and π differ) for every key of any side."""
    provenance = report.provenance
    sides = [flatten(provenance.behavior), flatten(provenance.reference)]
    if provenance.target is not None:
        sides.append(flatten(provenance.target))
    differing = {difference.key for difference in provenance.difference}
    keys = dict.fromkeys(key for side in sides for key in side)
    return [(key, [one_line(side.get(key), 80) for side in sides], key in differing) for key in keys]
