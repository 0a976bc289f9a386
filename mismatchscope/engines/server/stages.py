"""At which stage of the way from the logits to the draw a server reports log-probs, and what can be had from them.

    raw         the softmax of the logits
    tempered    after the temperature
    processed   after top-k and top-p as well: what is sampled from

A later stage can be computed from full distributions of an earlier one, and `raw` from full `tempered` ones. From
a few entries it cannot, because the normaliser is a sum over the vocabulary; what top-k or top-p cut off does not
come back at all.

Shapes: T response tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from ...records import Sampling

if TYPE_CHECKING:
    from torch import Tensor

Stage = Literal["raw", "tempered", "processed"]
RecordedPolicy = Literal["raw", "processed"]
Transform = Callable[["Tensor"], "Tensor"]

DESCRIPTIONS: dict[Stage, str] = {
    "raw": "before the temperature",
    "tempered": "after the temperature and before top-k and top-p",
    "processed": "after temperature, top-k and top-p",
}


def truncates(sampling: Sampling) -> bool:
    """Whether tokens are excluded from the draw; greedy decoding excludes all but the best."""
    return sampling.truncates or sampling.temperature == 0


def earliest(stage: Stage, sampling: Sampling) -> Stage:
    """The earliest stage at which the distribution is, under this sampling, the one of `stage`."""
    if stage == "processed" and not truncates(sampling):
        stage = "tempered"
    # Greedy decoding divides by no temperature.
    return "raw" if stage == "tempered" and sampling.temperature in (0.0, 1.0) else stage


def entries_needed(policy: RecordedPolicy, stage: Stage, sampling: Sampling) -> Literal["any", "all"] | None:
    """What a policy is had from: any entries of a stage as they are, all of the vocabulary, or None at all."""
    reported = earliest(stage, sampling)
    if policy == "raw":
        return {"raw": "any", "tempered": "all", "processed": None}[reported]
    return "any" if reported == earliest("processed", sampling) else "all"


def transform_to(
    policy: RecordedPolicy, stage: Stage, sampling: Sampling, *, top_p_first: bool = False
) -> Transform | None:
    """The function from full log-probs [T, V] of a stage to logits [T, V] of a policy; None where they are its own.

    A softmax does not see a constant, so log-probs serve as logits. `top_p_first`: top-p counts the mass of all
    ids, not of those that top-k leaves. A token on the very edge of top-p may be judged otherwise than the server
    did, whose sums were rounded in another order.
    """
    if entries_needed(policy, stage, sampling) == "any":
        return None
    if policy == "raw":
        return lambda logp_TV: logp_TV * sampling.temperature
    from ..common.sampling import process_logits

    if earliest(stage, sampling) == "tempered":
        sampling = replace(sampling, temperature=1.0)
    if not top_p_first:
        return lambda logp_TV: process_logits(logp_TV, sampling)
    before, after = replace(sampling, top_k=0), Sampling(top_k=sampling.top_k)
    return lambda logp_TV: process_logits(process_logits(logp_TV, before), after)
