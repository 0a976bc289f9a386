"""The diagnosis, and what a report of a log or a probe says beyond that of two traces, as tables and sentences that
all formats show.

A sentence is printed where it is true of the figures at hand: a level is called neither safe nor unsafe, and what
cannot be told is said to be so.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..measures.correction_results import CorrectionAudit
from ..measures.log_results import (
    ColumnPolicy,
    DistributionCheck,
    NativeMetric,
)
from .confirmation_section import confirmation_section
from .diagnosis_section import diagnosis_section
from .document import Alarm, Report
from .logs.group_section import group_section
from .logs.origins import origins_of
from .logs.section import Line, Section, range_text
from .logs.strips import CHOSEN
from .logs.trend_section import trend_section
from .probe_errors import errors_sections
from .probe_section import probe_sections
from .text import count, number

_POLICIES = {"behavior": "μ", "reference": "π_old", "target": "π_θ", "unknown": "π_old or π_θ, cannot tell"}
RESPONSES = "responses"


def other_alarms(report: Report) -> list[Alarm]:
    """The alarms that no check of a log says already."""
    said = {check.sentence for check in report.distribution}
    return [alarm for alarm in report.alarms if alarm.message not in said]


def log_sections(report: Report, *, short: bool) -> list[Section]:
    """In the order in which they are read; those of which the report says nothing are left out.

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
    yield diagnosis_section(report, short=short)
    yield confirmation_section(report)
    if report.probe is not None:
        yield from probe_sections(report.probe)
        yield from errors_sections(report.probe)
    if report.log is None:
        return
    yield _distribution(report, short)
    yield _columns(report)
    yield trend_section(report)
    for groups in report.groups:
        if not (short and groups.by == "step" and report.trend is not None):  # the trend has it
            yield group_section(groups, short)
    yield Section("where it comes from", "as far as the log's own labels say", lines=tuple(origins_of(report)))
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
        left = f"; {len(unknown)} cannot be told from this log (-v says why)" if unknown else ""
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
    several = log.steps is not None and log.steps[0] < log.steps[1]
    steps = "" if log.steps is None else f", {'steps' if several else 'step'} {range_text(log.steps)}"
    note = f"{log.format}: {count(log.files, 'file')}, {count(log.rows, 'row')}{steps}"
    return Section("the log", note, tuple(lines), ("policy", "column", "", "remark"), rows)


def _how_known(column: ColumnPolicy) -> str:
    return "decided from evidence" if not column.settled and column.policy != "unknown" else ""


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
    same = [metric.name for metric in metrics if metric.reproduces]
    lines += [Line(f"as the run logged it: {', '.join(same)}", "good")] if same else []
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
