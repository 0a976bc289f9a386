"""What a report of a log says beyond that of two traces, as tables and sentences that every format shows alike.

A sentence is printed where it is true of the figures at hand: a level is called neither safe nor unsafe, and what
cannot be told is said to be so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..measures.correction_results import CorrectionAudit
from ..measures.log_results import (
    ColumnPolicy,
    DistributionCheck,
    GroupRow,
    Groups,
    LengthScaling,
    NativeMetric,
    PromptEffect,
    Trend,
)
from ..measures.results import Interval
from .document import Alarm, Report
from .logs.strips import CHOSEN
from .logs.trends import known_trends
from .text import UNKNOWN, count, estimate, number, share

_POLICIES = {"behavior": "μ", "reference": "π_old", "target": "π_θ", "unknown": "π_old or π_θ, cannot tell"}
RESPONSES = "responses"
_MOST_ROWS = 8
"""Of a table, where it is to be short."""


class Line(NamedTuple):
    """A sentence; `tone` is good, bad, caution or neutral, `remedy` what to do about it."""

    text: str
    tone: str = "neutral"
    remedy: str | None = None


class Section(NamedTuple):
    """A title, sentences, then a table whose first column is a label."""

    title: str
    note: str = ""
    lines: tuple[Line, ...] = ()
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


def other_alarms(report: Report) -> list[Alarm]:
    """The alarms that no check of a log says already."""
    said = {check.sentence for check in report.distribution}
    return [alarm for alarm in report.alarms if alarm.message not in said]


def log_sections(report: Report, *, short: bool) -> list[Section]:
    """In the order in which they are read; those of which the log says nothing are left out.

    `short` leaves out what is as it should be, and the long tails of tables.
    """
    return [_without_empty(section) for section in _sections(report, short) if section.lines or section.rows]


def _without_empty(section: Section) -> Section:
    """The section without the columns in which no row has anything."""
    kept = [place for place in range(len(section.header)) if not place or any(row[place] for row in section.rows)]
    return section._replace(
        header=tuple(section.header[place] for place in kept),
        rows=tuple(tuple(row[place] for place in kept) for row in section.rows),
    )


def _sections(report: Report, short: bool) -> Iterator[Section]:
    if report.log is None:
        return
    yield _distribution(report, short)
    yield _columns(report)
    yield _trend(report)
    for groups in report.groups:
        if not (short and groups.by == "step" and report.trend is not None):  # the trend has it
            yield _groups(groups, short)
    yield Section("where it comes from", "as far as the log's own labels say", lines=tuple(_origins(report)))
    yield _audit(report.correction_audit)
    for trainer in dict.fromkeys(metric.trainer for metric in report.native_metrics):
        yield _native(trainer, [metric for metric in report.native_metrics if metric.trainer == trainer], short)
    if not short:
        yield _responses(report)


def _distribution(report: Report, short: bool) -> Section:
    checks = report.distribution
    passed = sum(check.status == "pass" for check in checks)
    lines = [_check(check) for check in checks if check.status == "fail"]
    unknown = [check for check in checks if check.status == "unknown"]
    if not short:
        lines += [_check(check) for check in checks if check.status != "fail"]
    elif checks:
        left = f"; {len(unknown)} cannot be told from this log" if unknown else ""
        lines.append(Line(f"{count(passed, 'check')} passed{left}", "good" if not lines else "neutral"))
    return Section("same distribution?", "are both columns log-probs of these tokens", lines=tuple(lines))


def _check(check: DistributionCheck | CorrectionAudit) -> Line:
    tone = {"pass": "good", "fail": "bad", "unknown": "neutral"}[check.status]
    return Line(check.sentence, tone, check.fix)


def _columns(report: Report) -> Section:
    log = report.log
    assert log is not None
    lines = [Line(f"repaired because it was asked for: {repair}", "caution") for repair in log.repairs]
    if log.selection is not None:
        lines.append(Line(f"a selection: {log.selection}; figures are of what was kept", "caution"))
    lines += [Line(remark, "caution") for remark in log.remarks]
    rows = tuple(
        (_POLICIES[column.policy], column.source, _how_known(column), column.remark) for column in log.columns
    )
    steps = "" if log.steps is None else f", steps {log.steps[0]:,}–{log.steps[1]:,}"
    note = f"{log.format}: {count(log.files, 'file')}, {count(log.rows, 'row')}{steps}"
    return Section("the log", note, tuple(lines), ("policy", "column", "", "remark"), rows)


def _how_known(column: ColumnPolicy) -> str:
    return "decided from evidence" if not column.settled and column.policy != "unknown" else ""


def _trend(report: Report) -> Section:
    named = [(label, trend) for _, label, trend in known_trends(report.trend)]
    if not named:
        return Section("trend")
    first = named[0][1]
    note = f"steps {_range(first.first_steps)} against {_range(first.last_steps)}; it places, it does not judge"
    header = ("", "first", "last", "last / first", "slope a step", "changes at", "passed at")
    return Section("trend", note, tuple(_moved(named)), header, tuple(_trend_row(*each) for each in named))


def _trend_row(label: str, trend: Trend) -> tuple[str, ...]:
    return (
        label,
        number(_mean_between(trend, trend.first_steps)),
        number(_mean_between(trend, trend.last_steps)),
        _interval(trend.relative),
        _interval(trend.slope),
        ", ".join(f"{change.step:,}" for change in trend.change_points),
        "" if trend.passed_at is None else f"{trend.passed_at:,}",
    )


def _mean_between(trend: Trend, steps: tuple[int, int]) -> float | None:
    values = [
        value
        for step, value in zip(trend.steps, trend.values, strict=True)
        if steps[0] <= step <= steps[1] and value is not None
    ]
    return sum(values) / len(values) if values else None


def _moved(named: list[tuple[str, Trend]]) -> Iterator[Line]:
    """A sentence of each figure whose ratio to its own first steps is not 1, to its confidence."""
    for label, trend in named:
        relative = trend.relative
        if relative.value is None or relative.low is None or relative.high is None:
            continue
        if relative.low > 1 or relative.high < 1:
            of_it = f"{number(relative.value)} {'times' if relative.value >= 1 else 'of'} what it was in steps"
            yield Line(f"{label} is {of_it} {_range(trend.first_steps)} ({_interval(relative)}).")


def _groups(groups: Groups, short: bool) -> Section:
    rows = list(groups.rows)
    shown = rows
    if short and len(rows) > _MOST_ROWS:
        shown = sorted(rows, key=lambda row: -(row.tv.value or 0.0))[:_MOST_ROWS]
        shown = [row for row in rows if row in shown]
    apart = [row.label for row in rows if row.differs]
    lines = [Line(f"{', '.join(apart)}: mean TV apart from the others'", "caution")] if apart else []
    if len(shown) < len(rows):
        lines.append(Line(f"{len(rows) - len(shown):,} more: those shown have the largest mean TV"))
    if groups.omitted:
        lines.append(Line(f"{groups.omitted:,} more, with the fewest tokens, have no row"))
    header = (groups.by, "prompts", "tokens", "mean TV", "KL(μ‖π)", "|Δ log p|", "mean ρ", "ESS / N")
    return Section(f"by {groups.by}", "", tuple(lines), header, tuple(map(_group_row, shown)))


def _group_row(row: GroupRow) -> tuple[str, ...]:
    return (
        row.label,
        f"{row.prompts:,}",
        f"{row.tokens:,}",
        _interval(row.tv),
        _interval(row.kl),
        _interval(row.abs_logprob_diff),
        _interval(row.ratio),
        number(row.ess_fraction),
    )


def _origins(report: Report) -> Iterator[Line]:
    if (stale := report.staleness) is not None:
        yield Line(f"Numerics alone: mean TV {_interval(stale.numerics)} at lag 0.")
        yield Line(f"Staleness adds {_interval(stale.excess)}, {_interval(stale.per_lag)} a version of lag.")
        if stale.remark is not None:
            yield Line(stale.remark, "caution")
        if stale.passed_at is not None:
            yield Line(f"Mean TV is above {number(stale.tolerance)} from lag {stale.passed_at} on.", "caution")
    if (cache := report.stale_cache) is not None:
        yield Line(cache.sentence, "caution" if cache.code == "stale_cache" else "neutral")
    if report.prompt_effect is not None:
        yield _prompt_effect(report.prompt_effect)
    if report.length_scaling is not None:
        yield _length_scaling(report.length_scaling)
    if (kept := report.kept_support) is not None:
        yield Line(
            f"Truncation by the sampler alone: TV {_interval(kept.truncation)}; on its kept set "
            f"{UNKNOWN if kept.tv is None else _interval(kept.tv)}."
        )


def _prompt_effect(effect: PromptEffect) -> Line:
    found = effect.intraclass
    if found.value is None:
        return Line("Whether it is always the same prompts cannot be told: no prompt has two responses.")
    return Line(
        f"{share(max(found.value, 0.0))} of the variance of responses' mean TV is between prompts "
        f"({_interval(found)}, {count(effect.prompts, 'prompt')})."
    )


_SCALING = {
    "below": "less than a random walk does: errors of a response's tokens cancel, or its first ones are largest",
    "random_walk": "as a random walk does: errors of a response's tokens are independent",
    "biased": "in proportion: responses differ in the mean of their tokens' d",
    "between": "between a random walk and a bias within responses",
    "cannot_tell": "and which of a random walk and a bias within responses it is cannot be told",
}


def _length_scaling(scaling: LengthScaling) -> Line:
    if scaling.exponent.value is None:
        return Line("How log ρ(y) spreads with length cannot be told from these lengths.")
    return Line(
        f"log ρ(y) spreads with length to the power {_interval(scaling.exponent)}, {_SCALING[scaling.code]}."
    )


def _responses(report: Report) -> Section:
    """Those that the page shows token by token."""
    rows = tuple(
        (
            f"{each.sequence_id}",
            CHOSEN[each.chosen],
            "" if each.step is None else f"{each.step:,}",
            each.worker or "",
            f"{len(each.tokens) + each.omitted:,}",
            "" if each.reward is None else number(each.reward),
            number(each.mean_tv),
            number(each.log_ratio),
        )
        for each in report.sequences
    )
    header = ("response", "chosen", "step", "worker", "tokens", "reward", "mean (1 − ρ)₊", "log ρ(y)")
    return Section(RESPONSES, "report.html shows them token by token", (), header, rows)


def _audit(audits: list[CorrectionAudit]) -> Section:
    lines = tuple(_check(audit) for audit in audits)
    return Section("the log's own correction", "recomputed from the ratios of the log", lines=lines)


def _native(trainer: str, metrics: list[NativeMetric], short: bool) -> Section:
    """Where it is to be short, those that the run logged alone."""
    shown = [metric for metric in metrics if metric.logged is not None] if short else metrics
    lines = [
        Line(f"{metric.name} does not reproduce: off by up to {number(metric.largest_difference)}", "caution")
        for metric in metrics
        if metric.reproduces is False
    ]
    ahead = sorted({metric.step_offset for metric in metrics if metric.step_offset})
    lines += [Line(f"the tracker's steps are {offset:+d} from the log's") for offset in ahead]
    rows = tuple((metric.name, number(metric.value), _reproduces(metric), metric.estimates) for metric in shown)
    return Section(
        f"what {trainer} logs", "recomputed by its definitions", tuple(lines), ("", "value", "logged", "is"), rows
    )


def _reproduces(metric: NativeMetric) -> str:
    if metric.logged is None:
        return ""
    return {True: "the same", False: "other", None: "other steps"}[metric.reproduces]


def _interval(interval: Interval) -> str:
    return estimate(interval.value, interval.low, interval.high)


def _range(steps: tuple[int, int]) -> str:
    return f"{steps[0]:,}" if steps[0] == steps[1] else f"{steps[0]:,}–{steps[1]:,}"
