"""Fields of the report for what a sampler does between its logits and the draw, one transform after another."""

from __future__ import annotations

from ..measures.results import Interval, result


@result
class KeptMass:
    """S, the mass that a sampler keeps of its own distribution before it cuts ids off, over states."""

    mean: Interval
    p10: float | None
    """A tenth of the states keeps no more; None where there are too few states to tell, as for `p01`."""
    p01: float | None
    least: float
    ids: float
    """How many ids are kept, on average."""


@result
class SamplerStep:
    """A sampler with its transforms up to this one, held against the trainer at the states that were visited.

    With each step the trainer has what it has of its own: before the temperature its raw policy, from there on that
    with the temperature that it divides by.
    """

    change: str
    """`top_p=0.9`; `raw` is the policy before any transform."""
    tried: bool
    """Whether this is no step of the run's own sampler, but what that would be with this change."""
    kept: KeptMass
    floor: Interval
    """Mean TV that this makes with perfect numerics, the trainer's logits being the sampler's: 1 − S where ids are
    cut off and nothing else differs."""
    tv: Interval
    """Mean TV to the trainer."""
    added: Interval | None
    """`tv` less that of the step before, paired by prompt; of what was tried, less that of the run's sampler."""
    replayed: Interval
    """Mean TV to a trainer that applies the sampler's penalties and temperature too, and has its log-probs
    normalised over the ids that the sampler kept."""


@result
class SamplerCheck:
    """The sampler's distribution as its engine had it, held against the one that its transforms make of its raw
    policy in float64."""

    states: int
    same_kept: int
    """At so many of the states both keep the same ids."""
    tied: int
    """At so many more they keep ids of the same probabilities: of two that tie at a border, one or the other."""
    max_tv: float
