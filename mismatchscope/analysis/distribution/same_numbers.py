"""Is one column a copy of the other, or in another unit?"""

from __future__ import annotations

import math

import numpy as np

from ...measures.log_results import DistributionCheck
from ...reports.text import count, number, share
from .examined import ExaminedResponses

_UNCERTAIN = 8
_ENOUGH = 100
_UNIT_BELOW = -0.1
_NEAR = 0.02
_SPREAD = 0.15
_UNITS = {
    "the reference's are base-10 logarithms": math.log10(math.e),
    "the behaviour's are base-10 logarithms": math.log(10),
    "the reference's are base-2 logarithms": math.log2(math.e),
    "the behaviour's are base-2 logarithms": math.log(2),
}


def copy_check(examined: ExaminedResponses, *, identical: bool) -> DistributionCheck:
    """Whether all log-probs of some responses, or of all, have the same bits on both sides."""
    uncertain_C = np.count_nonzero(examined.uncertain_CW, axis=1)
    tells_C = uncertain_C >= _UNCERTAIN
    telling, equal = int(tells_C.sum()), int((tells_C & (examined.equal_C == uncertain_C)).sum())
    if identical:
        sentence = (
            "No log-prob differs in a bit: one column is a copy of the other (a trainer that takes the sampler's "
            "log-probs for its own does this), or both sides compute alike to the last bit. The log cannot tell."
        )
    elif not telling:
        sentence = f"No response has {_UNCERTAIN} uncertain tokens, so a copy cannot be told."
    elif equal:
        sentence = (
            f"In {equal:,} of {count(telling, 'response')} ({share(equal / telling)}) every log-prob examined "
            "has the same bits on both sides, and in the others not: there one column may be a copy of the other."
        )
    else:
        sentence = "In no response examined are the two columns the same numbers."
    return DistributionCheck(
        code="copy",
        status="pass" if telling and not equal and not identical else "unknown",
        sentence=sentence,
        count=equal,
        of=telling,
        evidence={"identical": identical},
        fix="see whether the trainer computes log-probs of its own (no bypass or on-policy shortcut)"
        if identical or equal
        else None,
    )


def unit_check(examined: ExaminedResponses) -> DistributionCheck:
    """Whether one column is the other one times the factor between two bases of logarithms."""
    mu_CW, pi_CW = examined.mu_CW, examined.pi_CW
    graded_CW = (mu_CW < _UNIT_BELOW) & (pi_CW < _UNIT_BELOW)
    tokens = int(graded_CW.sum())
    if tokens < _ENOUGH:
        sentence = f"Fewer than {_ENOUGH} examined log-probs are far enough from 0 to tell their base."
        return DistributionCheck(code="unit", status="unknown", sentence=sentence, of=tokens)
    low, factor, high = np.quantile(pi_CW[graded_CW] / mu_CW[graded_CW], (0.25, 0.5, 0.75)).tolist()
    evidence = {"factor": factor, "p25": low, "p75": high}
    tight = (high - low) < _SPREAD * factor
    named = next((name for name, unit in _UNITS.items() if abs(factor / unit - 1) < _NEAR), None)
    if named is not None and tight:
        return DistributionCheck(
            code="unit",
            status="fail",
            sentence=f"The reference's log-probs are {number(factor)} times the behaviour's, half of them within "
            f"{number(low)} and {number(high)}: {named}.",
            of=tokens,
            evidence=evidence,
            fix="log natural logarithms on both sides",
        )
    return DistributionCheck(
        code="unit",
        status="pass",
        sentence=f"Both columns have one base of logarithms: their median quotient is {number(factor)}.",
        of=tokens,
        evidence=evidence,
    )
