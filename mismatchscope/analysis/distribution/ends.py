"""Are the first or the last tokens of responses far worse than the rest?

A template or a BOS token that one side lacks shows first; an end-of-sequence token that one side does not score
shows last.
"""

from __future__ import annotations

import numpy as np

from ...measures.log_results import DistributionCheck
from ...reports.text import count, number, share
from .examined import FIRST, ExaminedResponses

_REST = 16
_RESPONSES = 8
_TIMES = 10.0
_LEAST = {"first": 0.05, "last": 0.5}
_SHARE = 0.5
_SIDES = {"first": (f"first {FIRST} tokens", "first_tokens"), "last": ("last token", "last_token")}
_FIX = {
    "first": "compare the prompt's token ids on both sides: BOS, chat template, system prompt, and where it "
    "ends; a stale prefix cache looks alike",
    "last": "see whether both sides score the end-of-sequence or stop token",
}


def end_checks(examined: ExaminedResponses) -> list[DistributionCheck]:
    """Whether in at least half of the responses an end's |Δ log p| is ten times that of the other tokens."""
    first_C, rest_C = examined.first_and_rest_C
    long_C = examined.tokens_C >= FIRST + _REST
    ends = {"first": first_C, "last": examined.last_C}
    return [_check(end, distance_C[long_C], rest_C[long_C]) for end, distance_C in ends.items()]


def _check(end: str, distance_C: np.ndarray, rest_C: np.ndarray) -> DistributionCheck:
    known_C = np.isfinite(distance_C) & np.isfinite(rest_C)
    distance_C, rest_C = distance_C[known_C], rest_C[known_C]
    name, code = _SIDES[end]
    if len(rest_C) < _RESPONSES:
        return DistributionCheck(
            code=code,
            status="unknown",
            sentence=f"Fewer than {_RESPONSES} responses are long enough to compare their {name} with the rest.",
            of=len(rest_C),
        )
    worse = int(((distance_C > _TIMES * rest_C) & (distance_C > _LEAST[end])).sum())
    means = float(distance_C.mean()), float(rest_C.mean())
    fails = worse >= _SHARE * len(rest_C)
    return DistributionCheck(
        code=code,
        status="fail" if fails else "pass",
        sentence=f"In {worse:,} of {count(len(rest_C), 'response')} ({share(worse / len(rest_C))}) |Δ log p| of "
        f"the {name} is more than {_TIMES:.0f} times that of the others; its mean is {number(means[0])} against "
        f"{number(means[1])}.",
        count=worse,
        of=len(rest_C),
        evidence={"mean_abs_logprob_diff": means[0], "of_the_rest": means[1]},
        fix=_FIX[end] if fails else None,
    )
