"""What a user can ask of an analysis, checked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AnalysisSettings:
    """`tolerance` is of a mean TV: the step, and the lag, at which it is passed are reported where it is given."""

    confidence: float = 0.95
    max_rejected: float = 0.01
    tolerance: float | None = None
    tail: bool = False
