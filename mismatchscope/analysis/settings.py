"""What a user can ask of an analysis, checked."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UsageError
from ..foreign_text import printable
from ..measures.corrections.requests import settings_asked
from ..measures.native.registry import TRAINERS
from .repairs import UNREPAIRED, Repairs


@dataclass(frozen=True)
class AnalysisSettings:
    """`tolerance` is of a mean TV: the step, and the lag, at which it is passed are reported where it is given.
    `trainer` is whose metrics are recomputed: the one that the format is of by default, else all. `corrections` are
    asked for beyond the usual ones, in the words of `measures.corrections.requests`.

    Raises `UsageError` for a trainer or a correction that is not known.
    """

    confidence: float = 0.95
    max_rejected: float = 0.01
    tolerance: float | None = None
    trainer: str | None = None
    tail: bool = False
    repairs: Repairs = UNREPAIRED
    corrections: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for text in self.corrections:
            settings_asked(text)
        if self.trainer is not None and self.trainer not in TRAINERS:
            raise UsageError(
                f"'{printable(self.trainer)}' is no trainer whose metrics are known.",
                hint=f"--trainer {' or '.join(TRAINERS)}",
            )
