"""What holds for every pair of a comparison, decided once and never passed along by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import NotComparableError
from ..records import Policy
from ..traces.reader import Trace
from ..traces.schema import MASK

OnRows = Callable[[int], None]


@dataclass(frozen=True)
class Context:
    """What holds for every pair of a comparison.

    `policy` is that of the behaviour side; "support" renormalises the reference on μ's kept ids. `on_policy` says
    that the tokens were drawn from the μ that is measured: not where it was given a text, where the raw policy of a
    tempered or truncated sampler is measured, nor where another engine drew them, unless they are weighted by the
    policy that did: `weighted`, and `drawn_by` is its trace where it has one. `ids_of_behavior` says that observed
    top-k ids are μ's own.
    `mask` is the trace whose loss mask holds for every pair. `prompts` is the trace whose prompts the responses are
    to, where they were computed after something else. `on_rows` is told of measured states.
    """

    policy: Policy = "processed"
    on_policy: bool = True
    weighted: bool = False
    drawn_by: Trace | None = None
    ids_of_behavior: bool = True
    truncated: bool = False
    confidence: float = 0.95
    tail: bool = False
    mask: Trace | None = field(default=None, compare=False)
    prompts: Trace | None = field(default=None, compare=False)
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
            on_policy=not was_given(mu) and (policy != "raw" or sampling is None or not sampling.transforms),
            # A repeat of the same run does not say whose ids they are.
            ids_of_behavior=pi.manifest.parent in (None, mu.sha256),
            truncated=sampling is not None and sampling.truncates,
            mask=next((trace for trace in (mu, pi) if MASK in trace.token_columns), None),
            **settings,
        )

    def of_repeat(self, first: Trace, behavior: Trace) -> Context:
        """A trace against itself once more, on tokens that `behavior` drew."""
        return replace(
            self,
            policy=first.manifest.policy,
            tail=False,
            **({"ids_of_behavior": True} if first is behavior else self._drawn_by(behavior)),
        )

    def of_other_contexts(self, first: Trace, drawn: Trace, prompts: Trace) -> Context:
        """Two policies that were given the tokens of `drawn` after other contexts than those they were drawn in;
        `prompts` is the trace of what was drawn as a whole."""
        return replace(self.of_repeat(first, drawn), prompts=prompts)

    def of_other_engine(self, behavior: Trace) -> Context:
        """Another engine that was given the tokens of `behavior`, against the same reference."""
        return replace(self, tail=False, **self._drawn_by(behavior))

    def of_behavior(self) -> Context:
        """The behaviour against a third policy that was given its tokens: a target, another engine."""
        return replace(self, ids_of_behavior=True, tail=False)

    def of_reference(self, reference: Trace, behavior: Trace) -> Context:
        """The reference against a third policy, on the tokens of `behavior`."""
        return replace(
            self,
            policy=reference.manifest.policy,
            truncated=False,
            tail=False,
            **self._drawn_by(behavior),
        )

    def _drawn_by(self, behavior: Trace) -> dict[str, Any]:
        """For a pair whose first policy did not draw the tokens: its top-k are not the ids that were observed.

        A sampler that cuts ids off never draws what another policy gives them, so no weight can stand for it.
        """
        on_policy = self.on_policy and not self.truncated
        return {"ids_of_behavior": False, "weighted": True, "drawn_by": behavior, "on_policy": on_policy}


def was_given(mu: Trace) -> bool:
    """Whether μ was given its tokens, of a text say, in place of drawing them."""
    return mu.manifest.path == "prefill"


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
