"""Are the first or the last tokens of responses far worse than the rest?

A template or a BOS token that one side lacks shows first; an end-of-sequence token that one side does not score
shows last.
"""

from __future__ import annotations

import numpy as np

from ...measures.log_results import DistributionCheck
from ...reports.text import count, number, share
from .sample import FIRST, ResponseSample

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


def end_checks(sample: ResponseSample) -> list[DistributionCheck]:
    """Whether in at least half of the responses an end's |Δ log p| is ten times that of the other tokens."""
    return [_check(sample.rows, end) for end in ("first", "last")]


def _check(rows: np.ndarray, end: str) -> DistributionCheck:
    rows = rows[(rows["tokens"] >= FIRST + _REST) & np.isfinite(rows[end]) & np.isfinite(rows["rest"])]
    name, code = _SIDES[end]
    if len(rows) < _RESPONSES:
        return DistributionCheck(
            code=code,
            status="unknown",
            sentence=f"Fewer than {_RESPONSES} responses are long enough to compare their {name} with the rest.",
            of=len(rows),
        )
    worse = int(((rows[end] > _TIMES * rows["rest"]) & (rows[end] > _LEAST[end])).sum())
    means = float(rows[end].mean()), float(rows["rest"].mean())
    fails = worse >= _SHARE * len(rows)
    return DistributionCheck(
        code=code,
        status="fail" if fails else "pass",
        sentence=f"In {worse:,} of {count(len(rows), 'response')} ({share(worse / len(rows))}) |Δ log p| of the "
        f"{name} is more than {_TIMES:.0f} times that of the others; its mean is {number(means[0])} against "
        f"{number(means[1])}.",
        count=worse,
        of=len(rows),
        evidence={"mean_abs_logprob_diff": means[0], "of_the_rest": means[1]},
        fix=_FIX[end] if fails else None,
    )
