"""What a log has no values of, and what its report leaves out for that, in words."""

from __future__ import annotations

from ..measures.corrections.catalogue import NEEDS, Need
from ..measures.corrections.requests import settings_asked
from ..reports.text import count
from .settings import AnalysisSettings
from .statistics import LogStatistics


def without_target(statistics: LogStatistics) -> str | None:
    """What is left out where the log's π_θ is not known of all tokens; None where it is, or there is no column."""
    where = _unknown_at(statistics, "target")
    if where is None:
        return None
    said = f"π_θ has no log-prob (none, not a number, or above 0) at {where}"
    if statistics.beta.tokens:
        return f"{said}: α₀ and β are of the responses that have it at every token; the slack is left out"
    return f"{said}, and no response has it at every token: α₀, β and the slack are left out"


def rules_left_out(statistics: LogStatistics, settings: AnalysisSettings) -> list[str]:
    """A remark on the corrections that lack something of the log, or none; those that no log can show are named
    where somebody asked."""
    asked = {setting.name for text in settings.corrections for setting in settings_asked(text)}
    names: dict[str, list[str]] = {}
    needs = dict(NEEDS)
    for need in statistics.known_tokens:
        if where := _unknown_at(statistics, need):
            needs[need] += f" (not known at {where})"
    for name, reason in statistics.corrections.left_out(needs).items():
        if name in asked or "every state" not in reason:
            names.setdefault(reason, []).append(name)
    listed = "; ".join(f"{', '.join(each)} ({reason})" for reason, each in names.items())
    return [f"corrections that this log cannot show: {listed}"] if listed else []


def _unknown_at(statistics: LogStatistics, need: Need) -> str | None:
    """At how many of the tokens that count a column of the log has no value; None where it has all, or is none."""
    tokens = statistics.pair.tokens
    known = statistics.known_tokens.get(need, tokens)
    return f"{tokens - known:,} of {count(tokens, 'token')}" if known < tokens else None
