"""Sentences and a table under a title: what every format can show."""

from __future__ import annotations

from typing import NamedTuple

from ...measures.results import Interval
from ..text import estimate


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


def interval_text(interval: Interval) -> str:
    return estimate(interval.value, interval.low, interval.high)


def range_text(steps: tuple[int, int]) -> str:
    return f"{steps[0]:,}" if steps[0] == steps[1] else f"{steps[0]:,}–{steps[1]:,}"
