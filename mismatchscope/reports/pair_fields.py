"""Fields of the report for pairs beside the one that it is of: a baseline's, and the cells of a probe."""

from __future__ import annotations

from dataclasses import field
from typing import Any, Literal

from ..measures.layer_results import Internals
from ..measures.results import Alpha, Interval, Statistic, ThirdParty, result
from ..measures.routing_results import Routing
from .sampler_fields import SamplerCheck, SamplerStep


@result
class PairSummary:
    """One pair of policies on the same tokens, in short. `identical`: no recorded log-prob differs in a bit."""

    alpha: Alpha
    identical: bool
    tv: Statistic | None = None
    kl: Statistic | None = None
    abs_logprob_diff: Statistic | None = None
    kl_lower: Statistic | None = None
    rms_log_ratio: Interval | None = None
    """√E[(log ρ)²] over the sampled tokens as they are, whoever drew them: no weights."""
    same_tokens: int | None = None
    """Sampled tokens whose two log-probs have the same bits, of those compared."""
    tokens: int | None = None
    """That were compared."""

    @property
    def same_share(self) -> float | None:
        """Of the sampled tokens, those whose two log-probs have the same bits."""
        return None if self.same_tokens is None or not self.tokens else self.same_tokens / self.tokens


CellStatus = Literal["measured", "ignored", "failed", "left_out"]


@result
class CellRatio:
    """A cell's gap as a multiple of that of another cell, `to`: a ratio of means over the states of each."""

    to: str
    """`whole against behaviour`."""
    figure: Literal["tv", "abs_logprob_diff"]
    value: Interval


@result
class CellDifference:
    """The mean TV of one cell less that `than` another cell has, paired by prompt."""

    than: str
    """`prefill again against prefill`: the other cell."""
    tv: Interval


@result
class ProbeCell:
    """One setting held against another one, on the same tokens.

    `status` "ignored": the engine took the setting and says that it does something else; "failed": it refused the
    setting, or died of it; "left_out": there is nothing to try it on. The `reason` says more. `pair` is None where
    nothing could be compared.
    """

    setting: str
    against: str
    engine: str
    """The SPEC of the setting."""
    path: Literal["rollout", "decode", "prefill"]
    effective: dict[str, Any] = field(default_factory=dict)
    """What the engine did of all that this probe changes, by key."""
    status: CellStatus = "measured"
    reason: str | None = None
    pair: PairSummary | None = None
    differences: tuple[CellDifference, ...] = ()
    """From the cells that this probe holds it against: its floors, the usual value."""
    growth: Interval | None = None
    """Mean TV in the later half of a response over that in the earlier half."""
    rounding_floor: float | None = None
    """Upper bound of the TV that half an ulp of error in every logit of the two can cause; their dtypes decide."""
    third: str | None = None
    """The setting that both are held against, too."""
    errors: ThirdParty | None = None
    """Of the two, against `third`; None also where they cannot be known."""
    ratio: CellRatio | None = None
    times_rounding: float | None = None
    """How many times as large as rounding usually makes it: as `provenance.size.times`, of this pair."""
    side: Literal["behavior", "reference"] | None = None
    """Of the setting: with all that a sampler does to its logits, or with a trainer's temperature alone."""
    conditioned_on: str | None = None
    """`expert_ids of the sampler`: whose values the setting's forward took in place of its own; it is then not the
    policy that trains."""
    evidence: Literal["sampled", "topk", "full"] | None = None
    """What was seen of distributions on both sides."""
    side_by_side: bool = False
    """Whether one process scored both settings and compared their whole distributions, which are not stored."""
    not_side_by_side: str | None = None
    """Why that failed, so that what could be stored was compared."""


@result
class Completions:
    """Greedy completions of the same prompts under several settings: how many are different ones."""

    engine: str
    settings: list[str]
    prompts: int
    of_each: int
    """Completions of each prompt."""
    diverging_prompts: int
    """With more than one completion."""
    most_unique: int
    """Completions that differ, of the prompt that has most of them."""
    first_divergence: int | None
    """The first position, over all prompts, at which two completions of one prompt differ."""
    median_divergence: float | None
    """Of the diverging prompts' first positions."""


@result
class PrefixMeasures:
    """The first `tokens` tokens of the responses that have as many."""

    tokens: int
    tv: Interval
    """Of the two distributions of such beginnings: the mean of (1 − ρ)₊ of the beginnings that μ drew."""
    log_ratio: float | None
    """Mean of log ρ of a beginning; None where each has a token that π cannot draw."""
    spread: float | None
    """Standard deviation of log ρ of a beginning."""
    n: int
    """Responses."""


@result
class ProbeEffect:
    """How much of the gap a change makes, on average over the settings of the other changes: Shapley's value, or
    the main effect where a fraction of the combinations was run (`ProbeDesign`)."""

    change: str
    tv: Interval
    """Of mean TV, by prompt: positive is what the change takes away."""
    share: float | None
    """Of the whole gap."""


@result
class ProbeInteraction:
    """What two changes take away together beyond what each does alone, averaged over the settings of the others:
    negative where together they do less."""

    changes: str
    """`attn=auto and path=prefill`; with ` or ` between pairs that the combinations which were run do not tell
    apart."""
    tv: Interval
    """Of mean TV, by prompt: of several pairs, the sum of theirs."""
    share: float | None
    """Of the whole gap."""


@result
class ProbeDesign:
    """Which combinations of the changes were run."""

    settings: int
    """That are changed."""
    combinations: int
    """That were run."""
    resolution: int | None
    """Of a fraction of all combinations: letters of the shortest word of its defining relation."""
    generators: dict[str, list[str]]
    """Of a fraction: the changes that were made wherever an odd number of these others were."""


@result
class ProbeConclusion:
    """What the cells say together, in a sentence; `code` for programs."""

    code: str
    sentence: str


SIDES = {"behavior": "behaviour", "reference": "reference"}
"""What a cell's side is called in sentences."""


def engine_of(spec: str) -> str:
    """The engine that a SPEC names, with its version: `vllm==0.32.0`."""
    return spec.partition(":")[0].partition("@")[0]


@result
class Probe:
    """One thing changed at a time, on the same tokens."""

    name: str
    factor: str
    """What is changed."""
    cells: list[ProbeCell]
    conclusion: list[ProbeConclusion]
    pair_shown: str
    """`batch of 32 against alone, transformers decode`: the cell that all other figures of the report are of."""
    completions: list[Completions] = field(default_factory=list)
    effects: list[ProbeEffect] = field(default_factory=list)
    """The largest first; with `rest`, what is left with every change made, they add up to the whole gap."""
    lengths: list[PrefixMeasures] = field(default_factory=list)
    transforms: list[SamplerStep] = field(default_factory=list)
    """The run's own, from none to all, then what was tried in their place."""
    sampler_check: SamplerCheck | None = None
    routing: Routing | None = None
    interactions: list[ProbeInteraction] = field(default_factory=list)
    """The largest first."""
    design: ProbeDesign | None = None
    """Of `effects` and `interactions`."""
    internals: Internals | None = None

    @property
    def complete(self) -> bool:
        """Whether every setting that there was something to try on did what it was asked to."""
        return all(cell.status in ("measured", "left_out") for cell in self.cells)
