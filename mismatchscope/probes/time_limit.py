"""`--time`: a probe that is estimated to take longer is refused, with what could be left out."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..config import AuditSettings, parse_duration
from ..errors import ConfigError
from ..reports.text import count, duration
from .plan import Comparison, Plan, Probe, Question
from .run_times import TimeEstimate

if TYPE_CHECKING:
    from .traces import TraceMaker


@dataclass(eq=False)
class TimeLimit:
    """`text` is the limit as it was given. A plan is checked until all of its time is known: of an engine that has
    not run here, when it has. What ran before is kept."""

    text: str
    probe: Probe
    question: Question
    began: float = field(default_factory=time.monotonic)
    passed: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, probe: Probe, question: Question, settings: AuditSettings) -> TimeLimit | None:
        """None where the settings have no limit."""
        return None if settings.probe.time is None else cls(settings.probe.time, probe, question)

    def check(self, maker: TraceMaker, plan: Plan, beside: Sequence[Comparison] = ()) -> None:
        """Raise `ConfigError` where what is left of a plan, and of what is made side by side, takes longer than
        what is left of the time."""
        if id(plan) in self.passed:
            return
        estimate, spent = maker.estimate(plan, beside), time.monotonic() - self.began
        left = parse_duration(self.text) - spent
        if estimate.seconds > left:
            raise self._refused(estimate, spent, max(left, 0.0) / estimate.seconds)
        if not estimate.unknown:
            self.passed.add(id(plan))

    def _refused(self, estimate: TimeEstimate, spent: float, affordable: float) -> ConfigError:
        runs = f"{count(estimate.runs, 'run')} in {count(estimate.starts, 'engine start')}"
        least = "at least " if estimate.unknown else ""
        before = f"{duration(spent)} have passed, and " if spent >= 1 else ""
        hint = "fewer --values, --limit or --max-new-tokens"
        if self.probe.smaller is not None:
            hint = self.probe.smaller(self.question, affordable)
        return ConfigError(
            f"The time of {self.text} is too short: {before}{runs} are left, "
            f"which take {least}about {duration(estimate.seconds)}.",
            hint=f"{hint}; or --time {math.ceil((spent + estimate.seconds) / 50)}min",
        )
