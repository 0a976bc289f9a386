"""Responses of which some are off: by other routes, or by what no column of the log tells."""

from __future__ import annotations

import numpy as np

from ..detector import Finding, detector, of_sequences
from ..sample import Sample
from ..statistics.grouping import Mixture, by_metadata, two_means
from ..statistics.position import growth
from ..statistics.size import energy_below, gap, share_below, tail
from ..words import number, percent, some_sequences
from .grouping import meaning

_UNRELATED = 3.4
"""Root mean square of z of two policies that have little to do with each other."""
_ONE_WAY = 0.9
"""Share of the gap where π is below μ: 0.5 of rows of others, nearly 1 where π is of a state that μ had not."""
_UNEVEN, _SPARES = 1.25, 0.85
"""Root mean square over the robust scale, and share of tokens where π is below μ: experts that are not the token's
own spoil all tokens alike, with 1.01 to 1.39 and 0.86 to 0.92, where what is seen of other responses matters to
some tokens and not to others, with 1.28 and more and 0.71 to 0.83."""
_TAILED = 6.0
"""Root mean square over the median scale: weights that differ stay below."""


@detector(
    "worker",
    "staleness",
    "stale_weights",
    "adapter",
    "packing",
    "padding",
    "stale_prefix",
    "routing_replay",
    "row_order",
    tokens=200,
)
def some_responses(sample: Sample) -> Finding | None:
    """Responses at the floor and others far from it, and no column of metadata that tells them apart."""
    parts, size = two_means(sample), gap(sample)
    if parts is None or size.value is None or parts.low_gap.value is None or parts.high_gap.value is None:
        return None
    clear = parts.separation > 4.5 and parts.high_gap.value > 3 * max(parts.low_gap.value, 1.0)
    if not clear or parts.low_gap.value > 1.7 or not 0.08 < parts.share < 0.92:
        return None
    causes = tuple(each for each in _of_responses(sample, parts) if each not in _told(sample))
    if not causes:
        return None
    explained_N = of_sequences(sample, parts.high_S)
    return Finding(
        causes=causes,
        why=f"R is {number(parts.high_gap.value)} floors in {percent(parts.share)} of the responses and "
        f"{number(parts.low_gap.value)} in the others, and no column of a known meaning tells which.",
        statistic="R of the responses that are off, in floors",
        value=parts.high_gap,
        null=parts.low_gap.value,
        explained_N=explained_N,
        rest=sample.without(explained_N),
        **some_sequences(sample, explained_N),
    )


def _of_responses(sample: Sample, parts: Mixture) -> tuple[str, ...]:
    """What can be off of some responses, by how it is: without relation, with a few large gaps that fall along the
    response, as what was seen before it leaves them, or throughout, as weights leave it."""
    high = sample.without(of_sequences(sample, ~parts.high_S))
    course, spread, size = growth(high), tail(high), gap(high)
    if course is None or spread is None or size.value is None:
        return ()
    if size.value * sample.floor.value > _UNRELATED:
        below = energy_below(high)
        # Rows of others have the log-probs of what their own policy drew, so that neither column is the lower one.
        of_others = ("row_order",) if below is None or below < _ONE_WAY else ()
        if not of_others and spread > _UNEVEN and (share_below(high).value or 1.0) < _SPARES:
            return ("packing",)
        return ("packing", "routing_replay", *of_others)
    of_prompts = () if _differ_within_prompts(sample, parts) else ("stale_prefix",)
    if spread > _TAILED or (course[0] < -0.1 and spread > 2.9):
        return ("adapter", *of_prompts, "padding", "packing")
    weights = ("stale_weights", "staleness", "worker", "adapter")
    return weights + (of_prompts if course[0] < 0.2 else ())


def _differ_within_prompts(sample: Sample, parts: Mixture) -> bool:
    """Whether responses to one prompt are on both sides, where a cached prompt would have all of them off."""
    known_S = sample.live_S > 0
    _, prompt_S = np.unique(sample.evidence.prompt_S, return_inverse=True)
    of, high = (np.bincount(prompt_S, each) for each in (known_S, known_S & parts.high_S))
    return int(np.count_nonzero((high > 0) & (high < of))) >= 2


def _told(sample: Sample) -> set[str]:
    """Causes whose column is there, and separates nothing: the detector of grouping was asked before."""
    return {cause for groups in by_metadata(sample) for cause in meaning(groups.name)}
