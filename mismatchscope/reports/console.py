"""The report on a terminal: the verdict first, then the reasons to doubt it, then the figures.

Text that came from a model, a prompt or a log is never parsed as markup and never reaches the terminal raw.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..foreign_text import printable
from ..measures.results import Statistic
from .baseline import PAIRED_MEANING, VERDICT_TONE, compared_engines, pair_rows, paired_rows
from .bounds import bound_rows, discounted_rows
from .console_log import show_log
from .console_worst import WORST, worst_tokens
from .difference_fields import Difference, RoundingSize
from .document import Alarm, BaselineComparison, GateResult, Report
from .glossary import ALPHA, BOUNDS, Measure
from .log_sections import other_alarms
from .quantile_table import show_figures
from .reading import READING, reading_rows, sources
from .single_numbers import scalars
from .summary import (
    DIFFERENCES,
    Row,
    alpha_rows,
    causes,
    decades,
    exceeding,
    floor_rows,
    gate_value,
    headline,
    not_compared,
    sequence_statistics,
    size_remark,
    three_policies,
    token_statistics,
)
from .text import UNKNOWN, estimate, number, one_line, setting, share

_STYLE = {"good": "bold green", "bad": "bold red", "caution": "bold yellow", "neutral": "bold cyan"}
_VERDICT_STYLE = {"pass": "green", "fail": "red", "inconclusive": "yellow"}
_LABEL_WIDTH = 18
_NARROW = 76  # below this many columns the notes are left out
_QUANTILES = {"p50": "p50", "p90": "p90", "p99": "p99", "p99.9": "p999", "max": "max"}


def show(report: Report, console: Console, verbose: bool = False) -> None:
    """Print the report; `verbose` shows every measure, not the few that an engineer needs first."""
    _show_headline(report, console)
    if report.baseline:
        _show_baseline(report, report.baseline, console)
    show_gates(report.gates, console)
    show_log(report, console, verbose=verbose)
    if alarms := other_alarms(report):
        console.print()
    for alarm in alarms:
        console.print(_alarm_lines(alarm))
    _show_reading(report, console, verbose)
    _show_alpha(report, console)
    _show_statistics(report, console, verbose)
    if verbose:
        _show_by_length(report, console)
    if verbose or report.log is not None:
        _show_corrections(report, console)
    _show_bounds(bound_rows(report) if verbose else discounted_rows(report), console)
    if report.worst:
        _title(console, *WORST)
        console.print(worst_tokens(report.worst[: 10 if verbose else 3], console.width))
    provenance, limit = report.provenance, None if verbose else 3
    _show_differences(DIFFERENCES, provenance.difference, provenance.size, console, limit)
    if baseline := report.baseline:
        title = "what differs between the new engine and the old one"
        _show_differences(title, baseline.difference, baseline.size, console, limit)
    if step := report.reading.next_step:
        _show_command(console, "next", step.command, step.why)
    _show_command(console, "reproduce", report.provenance.command)


def _show_command(console: Console, title: str, command: str, note: str = "") -> None:
    """Unwrapped, so that it can be copied whole."""
    _title(console, title, note)
    console.print(Text(f"  {printable(command)}"), soft_wrap=True)


def _title(console: Console, text: str, note: str = "") -> None:
    console.print()
    console.print(Text.assemble((text, "bold"), (f"  {note}" if note else "", "dim")))


def _show_headline(report: Report, console: Console) -> None:
    head = headline(report)
    line = Table.grid(padding=(0, 2, 0, 0))
    line.add_column(no_wrap=True)
    line.add_column()
    line.add_row(Text(head.badge, style=_STYLE[head.tone]), Text(printable(head.sentence), style="bold"))
    if baseline := report.baseline:
        badge = Text(baseline.verdict.upper(), style=_STYLE[VERDICT_TONE[baseline.verdict]])
        line.add_row(badge, Text(printable(baseline.sentence), style="bold"))
    console.print(line)
    console.print(Text(printable(head.compared), style="dim"))
    console.print(Text(printable(head.scope), style="dim"))
    if missing := not_compared(report):
        console.print(Text(missing, style="yellow"))


def _show_baseline(report: Report, baseline: BaselineComparison, console: Console) -> None:
    _title(console, "baseline", printable(compared_engines(report, baseline)))
    mean = f"mean TV [{share(report.alpha1.mean.confidence)} interval]"
    header = ("", mean, "max", "KL", "|Δ log p|", "identical")
    rows = [(f"  {row.label}", *row[1:]) for row in pair_rows(report, baseline, intervals=False)]
    show_figures(console, header, rows, droppable=("|Δ log p|", "KL", "identical", "max"))
    if paired := paired_rows(baseline):
        console.print(Text(f"  {PAIRED_MEANING}", style="dim"))
        _show_rows(console, [Row(f"  {name}", difference) for name, difference in paired])


def show_gates(gates: Sequence[GateResult], console: Console) -> None:
    """Print one line a gate: its verdict, its condition, and the figure that decided it."""
    if gates:
        console.print()
        console.print(gate_table(gates))


def gate_table(gates: Sequence[GateResult]) -> Table:
    """The same as a table."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column()
    for gate in gates:
        reason = f"; {printable(gate.reason)}" if gate.reason else ""
        table.add_row(
            Text(gate.verdict, _VERDICT_STYLE[gate.verdict]),
            Text(printable(gate.expression)),
            Text(f"is {gate_value(gate)}{reason}", style="dim"),
        )
    return table


def _alarm_lines(alarm: Alarm) -> Table:
    style = "red" if alarm.severity == "error" else "yellow"
    lines = Table.grid(padding=(0, 1, 0, 0))
    lines.add_row(Text("▲", style), Text.assemble((printable(alarm.message), style)))
    if alarm.remedy:
        lines.add_row(Text("→", "dim"), Text(printable(alarm.remedy)))
    return lines


def _show_reading(report: Report, console: Console, verbose: bool) -> None:
    if rows := reading_rows(report):
        _title(console, *READING)
        _show_rows(console, rows)
    for line in sources(report) if verbose else ():
        console.print(Text(f"    {printable(line)}", style="dim"))


def _show_alpha(report: Report, console: Console) -> None:
    _title(console, *ALPHA["alpha1"])
    _show_rows(console, alpha_rows(report, report.alpha1) + floor_rows(report))
    curve = decades(report.alpha1.exceedance)
    if curve:
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(min_width=_LABEL_WIDTH + 2)
        for _ in curve:
            table.add_column(justify="right", min_width=8)
        table.add_row("  share with TV >", *[setting(point.tau) for point in curve], style="dim")
        table.add_row("    of tokens", *[exceeding(point.tokens, point.tokens_lower) for point in curve])
        table.add_row("    of prompts", *[exceeding(point.prompts, point.prompts_lower) for point in curve])
        console.print(table)
    for symbol, meaning, alpha in three_policies(report)[1:]:
        _title(console, symbol, meaning)
        _show_rows(console, alpha_rows(report, alpha))


def _show_rows(console: Console, rows: Iterable[Row]) -> None:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(min_width=_LABEL_WIDTH + 2, no_wrap=True)
    table.add_column(min_width=26, no_wrap=True)
    table.add_column(style="dim")
    for row in rows:
        note = printable(row.note) if console.width >= _NARROW else ""
        table.add_row(f"  {row.label}", Text(row.value, style="bold"), Text(note))
    console.print(table)


def _show_statistics(report: Report, console: Console, verbose: bool) -> None:
    sections = [
        ("per token", token_statistics(report, short=not verbose), scalars(report.token)),
        ("per response", sequence_statistics(report, short=not verbose), scalars(report.sequence)),
    ]
    for title, statistics, single in sections:
        if not statistics and not single:
            continue
        console.print()
        if statistics:
            _show_quantiles(console, title, statistics, verbose)
        else:
            console.print(Text(title, style="bold"))
        if single:
            console.print(Text("  " + " · ".join(f"{measure.label} {value}" for measure, value in single)))
    shown = [statistic for _, statistics, _ in sections for _, statistic in statistics]
    if any(getattr(statistic, name) is None for statistic in shown for name in _QUANTILES.values()):
        console.print(Text(f"  {UNKNOWN}  too few to resolve, or not known from this evidence", style="dim"))


def _show_quantiles(
    console: Console, title: str, statistics: list[tuple[Measure, Statistic]], verbose: bool
) -> None:
    mean = f"mean [{share(statistics[0][1].confidence)} interval]"
    rows = [
        (
            f"  {measure.label}".ljust(_LABEL_WIDTH),
            estimate(statistic.mean, statistic.low, statistic.high),
            *[number(getattr(statistic, name)) for name in _QUANTILES.values()],
        )
        for measure, statistic in statistics
    ]
    notes = [printable(statistic.estimator) for _, statistic in statistics] if verbose else None
    show_figures(
        console, (title, mean, *_QUANTILES), rows, droppable=("p90", "p50", "p99.9", "p99", "max"), notes=notes
    )


def _show_by_length(report: Report, console: Console) -> None:
    if not report.sequence.by_length:
        return
    console.print()
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    table.add_column(Text("by length", style="not dim bold"), min_width=_LABEL_WIDTH, no_wrap=True)
    for name in ("responses", "TV", "log ρ(y)", "ESS / N"):
        table.add_column(name, justify="right" if name == "responses" else "left", no_wrap=True)
    for length in report.sequence.by_length:
        tv, log_ratio = length.tv, length.log_ratio
        table.add_row(
            f"  {length.low:,}–{length.high:,} tokens",
            f"{length.sequences:,}",
            estimate(tv.value, tv.low, tv.high) if tv else UNKNOWN,
            estimate(log_ratio.value, log_ratio.low, log_ratio.high) if log_ratio else UNKNOWN,
            number(length.ess_fraction),
        )
    console.print(table)


def _show_bounds(rows: list[Row], console: Console) -> None:
    if rows:
        _title(console, *BOUNDS)
        _show_rows(console, rows)


def _show_corrections(report: Report, console: Console) -> None:
    if not report.corrections:
        return
    _title(console, "corrections", "they change which samples train, not α₁")
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("", min_width=_LABEL_WIDTH)
    for name in ("kept tokens", "responses", "mean weight", "clipped", "TV kept"):
        table.add_column(name, justify="right")
    for correction in report.corrections:
        settings = ", ".join(f"{key}={setting(value)}" for key, value in correction.parameters.items())
        named = printable(correction.name) + (f" ({settings})" if settings else "")
        table.add_row(
            Padding(Text(named), (0, 0, 0, 2)),
            share(correction.kept_tokens),
            share(correction.kept_sequences),
            number(correction.mean_weight),
            number(correction.clipped_mass),
            number(correction.tv_retained),
        )
    console.print(table)


def _show_differences(
    title: str, differences: list[Difference], size: RoundingSize | None, console: Console, limit: int | None
) -> None:
    remark = size_remark(size, differences)
    if not differences and remark is None:
        return
    _title(console, title)
    if remark is not None:
        console.print(Padding(Text(remark), (0, 0, 0, 2)))
    ordered = causes(differences)
    shown = ([difference for difference in ordered if difference.rank] or ordered)[:limit] if limit else ordered
    table = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(3):
        table.add_column()
    for difference in shown:
        table.add_row(
            Text(f"  {printable(difference.key)}"),
            Text(f"{printable(one_line(difference.behavior))} → {printable(one_line(difference.reference))}"),
            Text(printable(difference.why or ""), style="dim"),
        )
    console.print(table)
    if hidden := len(differences) - len(shown):
        console.print(Text(f"  and {hidden} more {'difference' if hidden == 1 else 'differences'}", style="dim"))
