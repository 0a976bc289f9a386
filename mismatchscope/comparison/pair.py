"""Two policies on the same states, measured: the one value that the report, both floors, α₀, β and every cell of a
table are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from ..alignment.alignment import Alignment, AlignmentCounts
from ..errors import NotComparableError
from ..measures.results import Alpha
from ..records import Policy
from ..reports.document import PairSummary
from ..traces.reader import Trace
from .reduction import PairFigures, reduce_pair
from .states import measured
from .statistics import PairStatistics

OnRows = Callable[[int], None]


@dataclass(frozen=True)
class Context:
    """What holds for every pair of a comparison.

    `policy` is that of the behaviour side; "support" renormalises the reference on μ's kept ids. `on_policy` says
    that the tokens were drawn from the μ that is measured: not where the raw policy of a tempered or truncated
    sampler is, nor where another engine drew them. `ids_of_behavior` says that observed top-k ids are μ's own.
    `on_rows` is told of measured states.
    """

    policy: Policy = "processed"
    on_policy: bool = True
    ids_of_behavior: bool = True
    truncated: bool = False
    confidence: float = 0.95
    tail: bool = False
    on_rows: OnRows | None = field(default=None, compare=False)

    @classmethod
    def of(cls, mu: Trace, pi: Trace, policy: Policy | None, **settings: Any) -> Context:
        """The context of μ against π. `policy` is that of the trace unless it is "support", or names the same
        thing.

        Raises `NotComparableError` for a policy that the behaviour trace does not hold.
        """
        sampling = mu.manifest.sampling
        policy = _checked_policy(policy, mu)
        return cls(
            policy=policy,
            on_policy=policy != "raw" or sampling is None or not sampling.transforms,
            # A repeat of the same run does not say whose ids they are.
            ids_of_behavior=pi.manifest.parent in (None, mu.sha256),
            truncated=sampling is not None and sampling.truncates,
            **settings,
        )

    def of_repeat(self, first: Trace) -> Context:
        """A trace against itself once more."""
        return replace(self, policy=first.manifest.policy, ids_of_behavior=True, tail=False)

    def of_other_engine(self) -> Context:
        """Another engine that was given these tokens, against the same reference."""
        return replace(self, on_policy=False, ids_of_behavior=False, tail=False)

    def of_target(self) -> Context:
        """The behaviour against the policy that is optimised."""
        return replace(self, ids_of_behavior=True, tail=False)

    def of_new_against_old(self) -> Context:
        """The behaviour against another engine that was given its tokens."""
        return replace(self, ids_of_behavior=True, tail=False)

    def of_reference(self, reference: Trace) -> Context:
        """The reference against a third policy, on tokens that are neither's own."""
        return replace(
            self,
            policy=reference.manifest.policy,
            on_policy=False,
            ids_of_behavior=True,
            truncated=False,
            tail=False,
        )


@dataclass(frozen=True, eq=False)
class Pair:
    """A pair as `measure_pair` found it. `notes` are remarks of the alignment."""

    mu: Trace
    pi: Trace
    context: Context
    counts: AlignmentCounts
    notes: list[str]
    statistics: PairStatistics

    @cached_property
    def figures(self) -> PairFigures:
        context = self.context
        return reduce_pair(
            self.statistics, on_policy=context.on_policy, confidence=context.confidence, tail=context.tail
        )

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
            abs_logprob_diff=figures.token.abs_logprob_diff,
            identical=figures.identical,
        )


def measure_pair(mu: Trace, pi: Trace, context: Context) -> Pair:
    """Align two traces and measure every state that they share, in one pass and in bounded memory.

    Raises `NotComparableError` and its kin when the traces are of different tokens, answer different questions or
    hold numbers that no policy has; `TraceError` when one contradicts itself.
    """
    alignment = Alignment(mu, pi)
    statistics = PairStatistics(truncated=context.truncated)
    for states in measured(alignment, context.policy, ids_of_behavior=context.ids_of_behavior):
        statistics.add(states)
        if context.on_rows is not None:
            context.on_rows(len(states.position_N))
    return Pair(mu, pi, context, alignment.counts, alignment.notes, statistics)


def _checked_policy(policy: Policy | None, behavior: Trace) -> Policy:
    recorded, sampling = behavior.manifest.policy, behavior.manifest.sampling
    if policy is None or policy == recorded:
        return recorded
    if policy == "support" and recorded == "processed":
        return policy
    if {policy, recorded} == {"raw", "processed"} and (sampling is None or not sampling.transforms):
        return policy  # with temperature 1 and nothing cut off they are the same distribution
    raise NotComparableError(
        f"The behaviour trace holds the {recorded} policy, so the {policy} one cannot be compared.",
        hint="compare the trace named …-raw beside it"
        if policy == "raw"
        else "compare the trace it was split from",
    )
