"""Two policies on the same states, measured: the one value that the report, both floors, α₀, β and every cell of a
table are made of."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

from ..alignment.alignment import Alignment
from ..alignment.counts import AlignmentCounts
from ..measures.intervals import NONNEGATIVE
from ..measures.results import Alpha, Interval
from ..reports.pair_fields import PairSummary
from ..traces.reader import Trace
from .context import Context
from .reduction import PairFigures, reduce_pair
from .states import measured
from .statistics import PairStatistics


@dataclass(frozen=True, eq=False)
class PolicyPair:
    """Two policies on the same states, wherever their log-probs came from."""

    context: Context
    statistics: PairStatistics

    @cached_property
    def figures(self) -> PairFigures:
        return reduce_pair(self.statistics, self.context)

    @property
    def alpha(self) -> Alpha:
        return self.figures.alpha

    @property
    def summary(self) -> PairSummary:
        """The pair in short."""
        figures = self.figures
        return PairSummary(
            alpha=figures.alpha,
            tv=figures.token.tv,
            kl=figures.token.kl,
            kl_lower=figures.token.kl_lower,
            rms_log_ratio=self._rms_log_ratio,
            abs_logprob_diff=figures.token.abs_logprob_diff,
            identical=figures.identical,
            same_tokens=self.statistics.sketches["log_ratio"].zeros,
            tokens=self.statistics.tokens,
        )

    @property
    def _rms_log_ratio(self) -> Interval:
        """The square root of twice the mean k2, and of the ends of its interval."""
        half = self.statistics.sums["k2"].interval(confidence=self.context.confidence, bounds=NONNEGATIVE)
        value, low, high = (
            None if end is None else math.sqrt(2 * end) for end in (half.value, half.low, half.high)
        )
        return replace(half, value=value, low=low, high=high)


@dataclass(frozen=True, eq=False)
class Pair(PolicyPair):
    """A pair as `measure_pair` found it in two traces. `notes` are remarks of the alignment."""

    mu: Trace
    pi: Trace
    counts: AlignmentCounts
    notes: list[str]


def measure_pair(mu: Trace, pi: Trace, context: Context) -> Pair:
    """Align two traces and measure every state that they share, in one pass and in bounded memory.

    Raises `NotComparableError` and its kin when the traces are of different tokens, answer different questions or
    hold numbers that no policy has; `TraceError` when one contradicts itself.
    """
    alignment = Alignment(mu, pi, mask=context.mask, prompts=context.prompts)
    statistics = PairStatistics(truncated=context.truncated)
    for states in measured(
        alignment, context.policy, ids_of_behavior=context.ids_of_behavior, drawn_by=context.drawn_by
    ):
        statistics.add(states)
        if context.on_rows is not None:
            context.on_rows(len(states.position_N))
    return Pair(context, statistics, mu, pi, alignment.counts, alignment.notes)
