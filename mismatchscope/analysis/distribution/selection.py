"""Has the mask already dropped what differs most? Then every figure is of a selection.

Shapes: S responses, R their recorded tokens.
"""

from __future__ import annotations

import numpy as np

from ...measures.distance_histogram import DistanceHistogram, scored_distances
from ...measures.log_results import DistributionCheck
from ...reports.text import count, share
from ..block import LogBlock
from .sample import ResponseSample

_TOKENS, _RESPONSES = 20, 4
_ABOVE, _QUANTILE = 0.95, 0.99
_CHANCE = 0.95


class MaskedTokens:
    """Keeps to `LogStatistic`: |Δ log p| of tokens that the mask leaves out, and of the others of their responses.

    A token takes part where both policies have a log-prob of it; exact zeros stand for none.
    """

    def __init__(self) -> None:
        self.masked, self.kept = DistanceHistogram(), DistanceHistogram()

    def add(self, block: LogBlock) -> None:
        if block.all_count or block.mask_R.all():
            return
        distance_R, scored_R = scored_distances(block.logp_R["behavior"], block.logp_R["reference"])
        masked_R = scored_R & ~block.mask_R
        if not masked_R.any():
            return
        start_S = np.cumsum(block.recorded_S) - block.recorded_S
        has_R = np.repeat(np.logical_or.reduceat(masked_R, start_S), block.recorded_S)
        self.masked.add(distance_R[masked_R])
        self.kept.add(distance_R[has_R & scored_R & block.counts_R])

    def merge(self, other: MaskedTokens) -> None:
        self.masked.merge(other.masked)
        self.kept.merge(other.kept)


def selection_check(
    tokens: MaskedTokens, dropped: DistanceHistogram, sample: ResponseSample, stated: str | None
) -> DistributionCheck:
    """`dropped` has the mean |Δ log p| of each response whose mask is false throughout; `stated` is what the format
    says its masks have left out."""
    kept = DistanceHistogram()
    kept.add(sample.rows["distance"][np.isfinite(sample.rows["distance"])])
    found = []
    tokens_above = responses_above = None
    if tokens.masked.n and tokens.kept.n:
        tokens_above = tokens.masked.share_above(tokens.kept, _QUANTILE)
        if tokens.masked.n >= _TOKENS and tokens_above >= _ABOVE:
            found.append(
                f"{share(tokens_above)} of the {count(tokens.masked.n, 'masked token')} that both "
                f"policies scored differ more than {_QUANTILE:.0%} of those beside them that count"
            )
    if dropped.n and kept.n:
        responses_above = dropped.chance_above(kept)
        if dropped.n >= _RESPONSES and responses_above >= _CHANCE:
            found.append(
                f"the {count(dropped.n, 'response')} that the mask drops whole differ more than those that count, "
                f"in {share(responses_above)} of comparisons"
            )
    evidence = {
        "masked_tokens": tokens.masked.n,
        "masked_responses": dropped.n,
        "tokens_above": tokens_above,
        "responses_above": responses_above,
    }
    if found:
        return DistributionCheck(
            code="selection",
            status="fail",
            sentence=f"The mask has left out what differs most: {'; '.join(found)}. Figures are of what is left.",
            count=tokens.masked.n or dropped.n,
            evidence=evidence,
            fix="log the mask from before any rejection; --mask all measures every token that has log-probs",
        )
    if tokens.masked.n + dropped.n == 0:
        nothing = "No masked token has log-probs of both policies, so what a mask left out cannot be seen."
        sentence = nothing if stated is None else f"{nothing} In this format: {stated}."
        return DistributionCheck(code="selection", status="unknown", sentence=sentence, evidence=evidence)
    sentence = "What the mask leaves out is not what differs most."
    return DistributionCheck(
        code="selection",
        status="pass" if stated is None else "unknown",
        sentence=sentence if stated is None else f"{sentence} In this format: {stated}.",
        count=tokens.masked.n,
        evidence=evidence,
    )
