"""What `routing` says of the experts that two sides choose: frozen values that a report holds as they are."""

from __future__ import annotations

from dataclasses import field

from .results import Interval, result


@result
class LayerRouting:
    """The choices of one layer at the states of responses. A margin lies between the router's logits of the last
    expert that was chosen and of the first that was not, on the behaviour's side."""

    layer: int
    same_set: Interval
    """Share of states at which both sides choose the same experts, in whatever order."""
    same_slots: Interval
    """Share of states at which they do so slot by slot."""
    jaccard: Interval
    """Mean of |A ∩ B| / |A ∪ B|, A and B the experts that the two choose."""
    weight_difference: Interval
    """Mean |Δ weight| of the experts that both choose."""
    margin_flipped: float | None
    """Median margin where the sets differ; None where no set does, or the logits do not decide the choice."""
    margin_same: float | None
    """Median margin where the sets are the same."""
    logit_difference: float | None
    """Median over states of the standard deviation over experts of the difference between the two routers' logits:
    what is added to all of them alike moves no choice."""
    renumbered: bool = False
    """Whether one permutation of the experts' numbers makes the sets agree that do not without it."""


@result
class Routing:
    """Which experts two sides choose for the states of the same responses; a *flip* is another set of experts.

    The choices are those of a forward over the whole sequence (prefill): what a sampler chose as it decoded is not
    seen. `tokens` counts states, of `prompts` prompts.
    """

    behavior: str
    """`vllm prefill`: whose choices are held against the reference's."""
    experts: int
    """Of which each layer chooses `chosen`."""
    chosen: int
    tokens: int
    prompts: int
    flipped: Interval
    """Share of states with a flip in one layer at least."""
    decisions: Interval
    """Share of decisions, one a state and layer, that are flips."""
    reordered: Interval
    """Share of decisions for the same experts in other slots."""
    after_flip: Interval
    """Share of flipped states among those right after a flipped one."""
    after_same: Interval
    """Share of flipped states among those right after one that is not."""
    tv_same: Interval
    """Mean TV of states without a flip. What is before them may have some."""
    tv_flipped: Interval
    """Mean TV of states with a flip."""
    tv_untouched: Interval
    """Mean TV of states without a flip there or anywhere before, in the prompt neither."""
    margin_flipped: float | None = None
    """Median margin of the decisions that are flips, of all layers."""
    margin_same: float | None = None
    """Median margin of the other decisions, of all layers."""
    layers: list[LayerRouting] = field(default_factory=list)
