"""The groups of a log as sections, one a kind of label."""

from __future__ import annotations

from ...measures.log_results import GroupRow, Groups
from ..text import number
from .section import Line, Section, interval_text

_MOST_ROWS = 8
"""Where a table is to be short."""
_ALIKE = "at like step, environment, lag, position, length and certainty"


def group_section(groups: Groups, short: bool) -> Section:
    rows = list(groups.rows)
    shown = rows
    if short and len(rows) > _MOST_ROWS:
        shown = sorted(rows, key=lambda row: -(row.tv.value or 0.0))[:_MOST_ROWS]
        shown = [row for row in rows if row in shown]
    apart = [row.label for row in rows if row.differs]
    named = "each" if len(apart) == len(rows) else ", ".join(apart)
    lines = [Line(f"{named}: mean TV apart from the others' {_ALIKE}", "caution")] if apart else []
    unknown = [row.label for row in rows if row.differs is None]
    if 0 < len(unknown) < len(rows):
        named = f"{', '.join(unknown[:_MOST_ROWS])}{' …' if len(unknown) > _MOST_ROWS else ''}"
        lines.append(Line(f"{named}: cannot be compared {_ALIKE}, or too few prompts"))
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
        interval_text(row.tv),
        interval_text(row.kl),
        interval_text(row.abs_logprob_diff),
        interval_text(row.ratio),
        number(row.ess_fraction),
    )
