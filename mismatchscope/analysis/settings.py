"""What a user can ask of an analysis, checked."""

from __future__ import annotations

import math
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
    asked for beyond the usual ones, in the words of `measures.corrections.requests`. `discount` and `advantage_max`
    are γ and ε of the discounted bounds, both or neither.

    Raises `UsageError` for a trainer or a correction that is not known, and for a number that cannot be right.
    """

    confidence: float = 0.95
    max_rejected: float = 0.01
    tolerance: float | None = None
    trainer: str | None = None
    tail: bool = False
    repairs: Repairs = UNREPAIRED
    corrections: tuple[str, ...] = ()
    discount: float | None = None
    advantage_max: float | None = None

    def __post_init__(self) -> None:
        if (self.discount is None) != (self.advantage_max is None):
            raise UsageError(
                "The discounted bounds need both γ and the largest advantage.",
                hint="--discount 0.99 --advantage-max 1",
            )
        if self.discount is not None and not 0 <= self.discount < 1:
            raise UsageError(
                f"A discount is at least 0 and below 1, not {self.discount:g}.", hint="--discount 0.99"
            )
        if self.advantage_max is not None and not 0 <= self.advantage_max < math.inf:
            raise UsageError(
                f"The largest advantage is a number from 0 on, not {self.advantage_max:g}.",
                hint="--advantage-max 1",
            )
        if self.tolerance is not None and not 0 <= self.tolerance < 1:
            raise UsageError(
                f"A tolerance of the mean TV is from 0 to below 1, not {self.tolerance:g}.", hint="--tolerance 0.01"
            )
        for text in self.corrections:
            settings_asked(text)
        if self.trainer is not None and self.trainer not in TRAINERS:
            raise UsageError(
                f"'{printable(self.trainer)}' is no trainer whose metrics are known.",
                hint=f"--trainer {' or '.join(TRAINERS)}",
            )
