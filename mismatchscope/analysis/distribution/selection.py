"""Has the mask already dropped what differs most? Then every figure is of a selection."""

from __future__ import annotations

import numpy as np

from ...measures.distance_histogram import DistanceHistogram
from ...measures.log_results import DistributionCheck
from ...reports.text import count, share
from .examined import ExaminedResponses

_TOKENS, _RESPONSES = 20, 4
_ABOVE, _QUANTILE = 0.95, 0.99
_CHANCE = 0.95


def selection_check(
    examined: ExaminedResponses, dropped: DistanceHistogram, stated: str | None
) -> DistributionCheck:
    """`dropped` has the mean |Δ log p| of each response whose mask is false throughout; `stated` is what the format
    says its masks have left out."""
    distance_CW, masked_CW = examined.distance_CW, examined.masked_CW
    masked = int(masked_CW.sum())
    kept = DistanceHistogram()
    kept.add(examined.mean_distance_C[examined.tokens_C > 0])
    found = []
    tokens_above = responses_above = None
    beside = distance_CW[masked_CW.any(axis=1, keepdims=True) & examined.counts_CW]
    if masked and len(beside):
        tokens_above = float(np.mean(distance_CW[masked_CW] > np.quantile(beside, _QUANTILE)))
        if masked >= _TOKENS and tokens_above >= _ABOVE:
            found.append(
                f"{share(tokens_above)} of the {count(masked, 'masked token')} that both "
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
        "masked_tokens": masked,
        "masked_responses": dropped.n,
        "tokens_above": tokens_above,
        "responses_above": responses_above,
    }
    if found:
        return DistributionCheck(
            code="selection",
            status="fail",
            sentence=f"The mask has left out what differs most: {'; '.join(found)}. Figures are of what is left.",
            count=masked or dropped.n,
            evidence=evidence,
            fix="log the mask from before any rejection; --mask all measures every token that has log-probs",
        )
    if masked + dropped.n == 0:
        nothing = "No masked token has log-probs of both policies, so what a mask left out cannot be seen."
        sentence = nothing if stated is None else f"{nothing} In this format: {stated}."
        return DistributionCheck(code="selection", status="unknown", sentence=sentence, evidence=evidence)
    sentence = "What the mask leaves out is not what differs most."
    return DistributionCheck(
        code="selection",
        status="pass" if stated is None else "unknown",
        sentence=sentence if stated is None else f"{sentence} In this format: {stated}.",
        count=masked,
        evidence=evidence,
    )
