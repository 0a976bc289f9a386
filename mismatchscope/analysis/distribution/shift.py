"""Is one column off by a token or two, in some responses or in all?"""

from __future__ import annotations

import numpy as np

from ...measures.intervals import proportion_interval
from ...measures.log_results import DistributionCheck
from ...measures.shift_votes import LEVEL, SHIFTS
from ...reports.text import count, number, share
from .examined import ExaminedResponses

_CHANCE = 1e-3
"""Of a log without a shift to be said to have one, were as many as `LEVEL` of its responses taken for shifted."""
_POOLED_TOKENS = 64
_POOLED_CLEARLY = 2.0  # a right alignment beats a wrong one by a factor of ten and more


def shift_check(examined: ExaminedResponses, moved: int = 0) -> DistributionCheck:
    """How many responses fit better at another shift; where they are too short to tell, all of them together.

    `moved` is the shift that the log was already read with.
    """
    from scipy.special import bdtrc

    shift_C, tells_C = examined.shifts
    scores = _mean_distances(examined)
    telling, shifted = int(tells_C.sum()), int(np.count_nonzero(shift_C))
    pooled = _pooled_shift(examined, scores)
    by_shift = {str(shift): int(np.count_nonzero(shift_C == shift)) for shift in SHIFTS}
    evidence = {
        "mean_abs_logprob_diff": {str(shift): score for shift, score in scores.items()},
        "responses": by_shift,
        "examined": len(examined),
        "error_rate": LEVEL,
    }
    if shifted and bdtrc(shifted - 1, len(examined), LEVEL) < _CHANCE:
        interval = proportion_interval(shifted, max(telling, shifted))
        most = max(SHIFTS, key=lambda shift: by_shift[str(shift)])
        return DistributionCheck(
            code="shift",
            status="fail",
            sentence=f"{shifted:,} of the {count(telling, 'response')} that can tell ({examined.said}) fit better "
            f"when the reference's log-probs are read {_moved(most)}"
            + (" or at another shift" if by_shift[str(most)] < shifted else "")
            + f": {share(interval.value)} [{share(interval.low)}, {share(interval.high)}]. Of responses without "
            f"a shift at most {share(LEVEL)} look like that.",
            count=shifted,
            of=telling,
            evidence=evidence | {"share_low": interval.low, "share_high": interval.high},
            fix=f"log p of token t comes from the logits at t − 1; mend what writes the column, or, where all are "
            f"off, {_option(moved + most)}",
        )
    if pooled:
        return DistributionCheck(
            code="shift",
            status="fail",
            sentence=f"Over all responses mean |Δ log p| is {number(scores[0])}, but {number(scores[pooled])} when "
            f"the reference's log-probs are read {_moved(pooled)}; single responses are too short to tell.",
            evidence=evidence,
            fix=f"log p of token t comes from the logits at t − 1; mend what writes it: {_option(moved + pooled)}",
        )
    if not telling:
        return DistributionCheck(
            code="shift",
            status="unknown",
            sentence=f"No response can tell whether a column is off by a token ({examined.said}): they are too "
            "short, or their log-probs too much alike.",
            count=0,
            of=0,
            evidence=evidence,
        )
    return DistributionCheck(
        code="shift",
        status="pass",
        sentence=f"{shifted:,} of the {count(telling, 'response')} that can tell ({examined.said}) fit better at "
        "another shift.",
        count=shifted,
        of=telling,
        evidence=evidence,
    )


def _option(shift: int) -> str:
    return f"--shift {shift}" if shift else "leave --shift out"


def _moved(shift: int) -> str:
    return f"{abs(shift)} token{'s' if abs(shift) > 1 else ''} {'further' if shift > 0 else 'earlier'}"


def _mean_distances(examined: ExaminedResponses) -> dict[int, float | None]:
    """Mean |Δ log p| at each shift, over the tokens that have a partner there; at 0 over all of them."""
    votes, found = examined.votes, {}
    for k, shift in enumerate(SHIFTS):
        tokens = int((votes.better_SKV[:, k].astype(np.int64) + votes.worse_SKV[:, k]).max(axis=1).sum())
        found[shift] = float(votes.at_shift_SKV[:, k, 0].sum()) / tokens if tokens else None
    tokens = int(examined.tokens_C.sum())
    found[0] = float(examined.distance_CW[examined.counts_CW].sum()) / tokens if tokens else None
    return dict(sorted(found.items()))


def _pooled_shift(examined: ExaminedResponses, scores: dict[int, float | None]) -> int:
    """The shift that explains all examined responses clearly better than 0 does, else 0."""
    votes = examined.votes
    at_zero_KV, at_shift_KV = votes.at_zero_SKV.sum(axis=0), votes.at_shift_SKV.sum(axis=0)
    cast_KV = (votes.better_SKV.astype(np.int64) + votes.worse_SKV).sum(axis=0)
    clear_K = (cast_KV >= _POOLED_TOKENS).all(axis=1) & (at_shift_KV * _POOLED_CLEARLY < at_zero_KV).all(axis=1)
    if not clear_K.any():
        return 0
    return min((shift for k, shift in enumerate(SHIFTS) if clear_K[k]), key=lambda shift: scores[shift] or 0.0)
