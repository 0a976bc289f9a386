"""The report as GitHub-flavoured Markdown: short enough for a pull-request comment or a step summary."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from ..foreign_text import printable, printable_lines
from ..measures.results import Statistic
from .baseline import PAIRED_MEANING, VERDICT_TONE, compared_engines, pair_rows, paired_rows
from .bounds import discounted_rows
from .document import BaselineComparison, GateResult, Provenance, Report
from .glossary import ALPHA, BOUNDS, Measure
from .log_sections import log_sections, other_alarms
from .logs.section import Line, Section
from .moved_token import moved_most
from .reading import READING, reading_rows, sources
from .single_numbers import scalars
from .summary import (
    DIFFERENCES,
    Row,
    alpha_rows,
    causes,
    floor_rows,
    gate_value,
    headline,
    not_compared,
    sequence_statistics,
    size_remark,
    three_policies,
    token_statistics,
)
from .text import estimate, number, one_line, share

# Finds the comment that an earlier run left, so that a workflow can replace it.
MARKER = "<!-- mismatchscope report -->"

_ICON = {"good": "✅", "bad": "❌", "caution": "🟡", "neutral": "📏"}
_MARKUP = re.compile(r"[\\`*_\[\]|~@#]|:(?=[\w+-]+:)")
_LINE_ICON = {"good": "✅ ", "bad": "❌ ", "caution": "🟡 ", "neutral": ""}
_GATE_ICON = {"pass": "✅", "fail": "❌", "inconclusive": "🟡"}


def render(report: Report) -> str:
    """The report as Markdown; what is long is folded."""
    head = headline(report)
    blocks = [
        MARKER,
        heading(head.badge, head.tone, head.sentence),
        *_baseline(report),
        _text(head.compared),
        " · ".join(filter(None, [_text(head.scope), not_compared(report)])),
        gates_block(report.gates),
        *section_blocks(log_sections(report, short=False)),
        *_alarms(report),
        *_reading(report),
        f"**{ALPHA['alpha1'][0]}**, {ALPHA['alpha1'][1]}",
        _rows(alpha_rows(report, report.alpha1) + floor_rows(report)),
    ]
    for symbol, meaning, alpha in three_policies(report)[1:]:
        blocks += [f"**{symbol}**, {meaning}", _rows(alpha_rows(report, alpha))]
    token, response = token_statistics(report, short=True), sequence_statistics(report, short=True)
    confidence = report.alpha1.mean.confidence
    blocks += [_statistics("per token", token, confidence), _scalars(scalars(report.token))]
    blocks += [_statistics("per response", response, confidence), _scalars(scalars(report.sequence))]
    if asked := discounted_rows(report):
        blocks += [f"**{BOUNDS[0]}**, {_text(BOUNDS[1])}", _rows(asked)]
    blocks += [
        _fold("Farthest apart", _worst(report)),
        _fold(DIFFERENCES.capitalize(), _differences(report.provenance)),
    ]
    if report.baseline:
        difference = _differences(report.baseline, ("new", "old"))
        blocks.append(_fold("What differs between the new engine and the old one", difference))
    if step := report.reading.next_step:
        blocks += [f"**Next**: {_text(step.why)}", _fence(step.command)]
    blocks += ["**Reproduce**", _fence(report.provenance.command)]
    return printable_lines("\n\n".join(block for block in blocks if block)) + "\n"


def _baseline(report: Report) -> Iterable[str]:
    if report.baseline is None:
        return
    baseline = report.baseline
    yield f"**{_ICON[VERDICT_TONE[baseline.verdict]]} {baseline.verdict.upper()}**: {_text(baseline.sentence)}"
    yield f"**Baseline**: {_text(compared_engines(report, baseline))}"
    mean = f"mean TV [{share(report.alpha1.mean.confidence)} interval]"
    header = ("", mean, "max TV", "KL", "&#124;Δ log p&#124;", "identical")
    yield _table(header, pair_rows(report, baseline))
    yield _table((PAIRED_MEANING, ""), [(_text(name), f"**{value}**") for name, value in paired_rows(baseline)])


def heading(badge: str, tone: str, sentence: str) -> str:
    return f"### {_ICON[tone]} {badge}: {_text(sentence)}"


def section_blocks(sections: Iterable[Section]) -> Iterable[str]:
    """The first section in the open, the others folded."""
    for place, section in enumerate(sections):
        lines = "\n".join(f"- {_LINE_ICON[line.tone]}{_text(line.text)}{_remedy(line)}" for line in section.lines)
        table = (
            _table(tuple(map(_text, section.header)), [tuple(map(_text, row)) for row in section.rows])
            if section.rows
            else ""
        )
        note = f", {_text(section.note)}" if section.note else ""
        content = "\n\n".join(filter(None, [lines, table]))
        yield (
            _fold(f"{section.title.capitalize()}{note}", content)
            if place
            else f"**{section.title}**{note}\n\n{content}"
        )


def _remedy(line: Line) -> str:
    return f" → {_text(line.remedy)}" if line.remedy else ""


def gates_block(gates: Iterable[GateResult]) -> str:
    """Empty where there are none."""
    rows = [
        (
            f"{_GATE_ICON[gate.verdict]} {gate.verdict}",
            _code(gate.expression),
            _text("; ".join(filter(None, [gate_value(gate), gate.reason]))),
        )
        for gate in gates
    ]
    return _table(("gate", "fails if", "value"), rows)


def _alarms(report: Report) -> Iterable[str]:
    for alarm in other_alarms(report):
        lines = ["[!CAUTION]" if alarm.severity == "error" else "[!WARNING]", _text(alarm.message)]
        if alarm.remedy:
            lines.append(f"→ {_text(alarm.remedy)}")
        yield "\n".join(f"> {line}" for line in lines)


def _reading(report: Report) -> Iterable[str]:
    if rows := reading_rows(report):
        yield f"**{READING[0].capitalize()}**: {READING[1]}"
        yield _rows(rows)
        yield _fold("Public figures", "\n".join(f"- {_text(line)}" for line in sources(report)))


def _rows(rows: Iterable[Row]) -> str:
    return _table(("", "", ""), [(_text(row.label), f"**{row.value}**", _text(row.note)) for row in rows])


def _statistics(title: str, statistics: list[tuple[Measure, Statistic]], confidence: float) -> str:
    rows = [
        (
            _text(measure.label),
            estimate(statistic.mean, statistic.low, statistic.high),
            *[number(getattr(statistic, name)) for name in ("p50", "p99", "p999", "max")],
        )
        for measure, statistic in statistics
    ]
    mean = f"mean [{share(confidence)} interval]"
    return _table((title, mean, "p50", "p99", "p99.9", "max"), rows)


def _scalars(figures: list[tuple[Measure, str]]) -> str:
    return " · ".join(f"{_text(measure.label)} {value}" for measure, value in figures)


def _worst(report: Report) -> str:
    rows = []
    for token in report.worst[:5]:
        pieces = [_text(piece.text) for piece in token.context]
        if pieces:
            pieces[token.focus] = f"<b>{pieces[token.focus]}</b>"
        place = f"{token.sequence_id} at {token.position}"
        rows.append((number(token.tv), _text(moved_most(token)), place, "".join(pieces)))
    return _table(("TV", "moved most, μ → π", "response", "context"), rows)


def _differences(source: Provenance | BaselineComparison, sides: tuple[str, str] = ("μ", "π")) -> str:
    rows = [
        (
            str(difference.rank) if difference.rank else "",
            *[
                _code(value)
                for value in (difference.key, one_line(difference.behavior), one_line(difference.reference))
            ],
            _text(difference.why or ""),
        )
        for difference in causes(source.difference)
    ]
    remark = size_remark(source.size, source.difference)
    table = _table(("rank", "key", *sides, "what it can do"), rows)
    return "\n\n".join(filter(None, [remark and _text(remark), table]))


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    if not lines:
        return ""
    return "\n".join([f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}", *lines])


def _fold(title: str, body: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>" if body else ""


def _text(text: str) -> str:
    """Foreign text that must neither become markup, nor a mention, nor end a table cell."""
    return _MARKUP.sub(_inert, html.escape(printable(text), quote=False))


def _inert(markup: re.Match[str]) -> str:
    # GitHub looks for mentions, issues and emoji codes when entities are characters again, within one text node.
    return f"&#{ord(markup[0])};" + ("<!-- -->" if markup[0] in "@#:" else "")


def _code(text: str) -> str:
    """Foreign text in monospace; HTML because backticks cannot hold backticks and pipes end a table cell."""
    return f"<code>{_text(text)}</code>"


def _fence(command: str) -> str:
    fence = "`" * (max((len(run) for run in re.findall(r"`+", command)), default=0) + 3)
    return f"{fence}sh\n{printable(command)}\n{fence}"
