"""Has the mask already dropped what differs most? Then every figure is of a selection.

A rejection by their difference leaves single tokens out among those it keeps. Runs of tokens, and those at ends,
are left out for another reason: tool output, padding and stop tokens may differ more, and say nothing of the rest.
"""

from __future__ import annotations

import numpy as np

from ...measures.distance_histogram import DistanceHistogram
from ...measures.log_results import DistributionCheck
from ...measures.scattered import Scatter
from ...reports.text import count, share
from .examined import ExaminedResponses

_TOKENS, _RESPONSES = 20, 4
_ABOVE, _QUANTILE = 0.95, 0.99
_CHANCE = 0.95
_LEAST = 1e-3
"""A smaller |Δ log p| is nothing that a rejection is for: where nearly all are smaller, any mask looks like one."""


def selection_check(
    examined: ExaminedResponses, dropped: DistanceHistogram, stated: str | None
) -> DistributionCheck:
    """`dropped` has the mean |Δ log p| of each response whose mask is false throughout; `stated` is what the format
    says its masks have left out."""
    distance_CW, masked_CW = examined.distance_CW, _scored(examined)
    masked = int(masked_CW.sum())
    kept = DistanceHistogram()
    kept.add(examined.mean_distance_C[examined.tokens_C > 0])
    found = []
    tokens_above = responses_above = None
    beside = distance_CW[masked_CW.any(axis=1, keepdims=True) & examined.counts_CW]
    if masked and len(beside):
        largest = max(float(np.quantile(beside, _QUANTILE)), _LEAST)
        tokens_above = float(np.mean(distance_CW[masked_CW] > largest))
        if masked >= _TOKENS and tokens_above >= _ABOVE and _is_scattered(masked_CW, examined.counts_CW):
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
    sentence = "That the mask leaves out what differs most is not shown."
    return DistributionCheck(
        code="selection",
        status="pass" if stated is None else "unknown",
        sentence=sentence if stated is None else f"{sentence} In this format: {stated}.",
        count=masked,
        evidence=evidence,
    )


def _scored(examined: ExaminedResponses) -> np.ndarray:
    """Masked tokens with log-probs of both policies. A value that most of them have stands for none."""
    masked_CW: np.ndarray = examined.masked_CW.copy()
    for logp_CW in (examined.scored_mu_CW, examined.scored_pi_CW):
        value, times = np.unique(logp_CW[masked_CW], return_counts=True)
        if len(times) and 2 * times.max() > times.sum():
            masked_CW &= logp_CW != value[times.argmax()]
    return masked_CW


def _is_scattered(masked_CW: np.ndarray, counts_CW: np.ndarray) -> bool:
    first_CW = np.zeros_like(masked_CW)
    first_CW[:, 0] = True
    scatter = Scatter()
    scatter.add(masked_CW.ravel(), (masked_CW | counts_CW).ravel(), first_CW.ravel())
    return scatter.is_scattered
