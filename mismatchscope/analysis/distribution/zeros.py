"""Do exact zeros stand where no log-prob was recorded?

A token that a policy is certain of has log-prob 0, so a zero alone is no fault. It is one where the other side
finds the token unlikely, far more often than it does at values next to 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...measures.distance_histogram import DistanceHistogram
from ...measures.log_results import DistributionCheck
from ...measures.padding import USUAL, looks_padded
from ...reports.text import count, share
from .examined import ExaminedResponses

_CHANCE = 1e-3
"""Of a log whose zeros are no more often unlikely than they may be to be said to have fillers."""
_NEAR = -0.05
_UNLIKELY = -0.5
_TIMES, _FEWEST = 4, 4
_PRIOR = 1, 100
"""Unlikely ones and all of them, added to the values next to 0: a log may have none."""
_SPLIT = 0.75
"""A sampler that keeps one id keeps the likeliest one, so its zeros are likelier than its other tokens: in 0.87 of
comparisons at min-p 0.5, in more with other samplers. Tokens whose values were filled in are as likely."""


def zero_checks(examined: ExaminedResponses) -> list[DistributionCheck]:
    return [padding_check(examined), scattered_check(examined)]


def padding_check(examined: ExaminedResponses) -> DistributionCheck:
    """Whether responses end, or begin, in one id over and over, with log-prob 0 on both sides."""
    padded, tokens = int(np.count_nonzero(examined.padding_C)), int(examined.padding_C.sum())
    evidence = {"tokens": tokens, "error_rate": USUAL}
    if looks_padded(examined.padding_C):
        of_all = tokens / max(int(examined.length_C.sum()), 1)
        return DistributionCheck(
            code="padding",
            status="fail",
            sentence=f"{padded:,} of {count(len(examined), 'response')} ({examined.said}) begin or end in one "
            f"token id over and over with log-prob 0 on both sides: {share(of_all)} of all tokens. Padding looks "
            "like this, and counts as agreement.",
            count=padded,
            of=len(examined),
            evidence=evidence,
            fix="record a mask or the lengths (Recorder.log: mask=, lengths= or cu_seqlens=); --mask scored leaves "
            "out all tokens with a log-prob of 0",
        )
    both_CW = examined.counts_CW & (examined.scored_mu_CW == 0) & (examined.scored_pi_CW == 0)
    zeros, of = int(both_CW.sum()), int(examined.tokens_C.sum())
    if zeros:
        sentence = (
            f"{zeros:,} of {count(of, 'token')} examined ({share(zeros / of)}) have log-prob 0 on both sides. "
            "Tokens that both sides are certain of look like this, and tokens that nobody scored."
        )
        return DistributionCheck(
            code="padding", status="unknown", sentence=sentence, count=padded, of=len(examined), evidence=evidence
        )
    return DistributionCheck(
        code="padding",
        status="pass",
        sentence="No token examined has log-prob 0 on both sides, as padding has.",
        count=0,
        of=len(examined),
        evidence=evidence,
    )


@dataclass(frozen=True)
class _Zeros:
    """Exact zeros of a column, how many of them the other side finds unlikely, and the same of values next to 0."""

    side: str
    other: str
    zeros: int
    unlikely: int
    near: int
    near_unlikely: int
    likelier: float | None
    """Chance that an unlikely zero is more likely, to the other side, than an unlikely token that is no zero; None
    where there is no such token."""

    @classmethod
    def of(cls, side: str, other: str, logp_N: np.ndarray, other_N: np.ndarray) -> _Zeros:
        zero_N, unlikely_N = logp_N == 0, other_N < _UNLIKELY
        near_N = (logp_N > _NEAR) & ~zero_N
        at_zeros, elsewhere = DistanceHistogram(), DistanceHistogram()
        at_zeros.add(-other_N[zero_N & unlikely_N])
        elsewhere.add(-other_N[~zero_N & unlikely_N])
        return cls(
            side=side,
            other=other,
            zeros=int(zero_N.sum()),
            unlikely=at_zeros.n,
            near=int(near_N.sum()),
            near_unlikely=int((near_N & unlikely_N).sum()),
            likelier=elsewhere.chance_above(at_zeros) if at_zeros.n and elsewhere.n else None,
        )

    @property
    def too_many(self) -> bool:
        from scipy.special import bdtrc

        rate = _TIMES * (self.near_unlikely + _PRIOR[0]) / (self.near + _PRIOR[1])
        return self.unlikely >= _FEWEST and bool(bdtrc(self.unlikely - 1, self.zeros, min(rate, 1.0)) < _CHANCE)

    @property
    def may_be_drawn(self) -> bool:
        """Whether a sampler that kept a single id there would leave the same."""
        return self.likelier is None or self.likelier > _SPLIT

    @property
    def sentence(self) -> str:
        return (
            f"{self.zeros:,} log-probs examined of the {self.side} are exactly 0, and at {self.unlikely:,} of "
            f"them ({share(self.unlikely / self.zeros)}) the {self.other} is below {_UNLIKELY}; of the "
            f"{self.near:,} next to 0, above {_NEAR}, at {self.near_unlikely:,}."
        )


def scattered_check(examined: ExaminedResponses) -> DistributionCheck:
    """Whether the other side finds the tokens unlikely that have an exact zero in one column, at any places."""
    logp_mu_N, logp_pi_N = examined.scored_mu_CW[examined.counts_CW], examined.scored_pi_CW[examined.counts_CW]
    columns = (
        _Zeros.of("behaviour", "reference", logp_mu_N, logp_pi_N),
        _Zeros.of("reference", "behaviour", logp_pi_N, logp_mu_N),
    )
    evidence = {"zeros": {column.side: column.zeros for column in columns}}
    suspect = [column for column in columns if column.too_many]
    filled = [column for column in suspect if not column.may_be_drawn]
    if filled:
        return DistributionCheck(
            code="zeros",
            status="fail",
            sentence=f"{' '.join(column.sentence for column in filled)} Values that were filled in look like this.",
            count=sum(column.unlikely for column in filled),
            of=len(logp_mu_N),
            evidence=evidence,
            fix="leave tokens that nobody scored out with a mask; --mask scored leaves out all that have a 0",
        )
    if suspect:
        return DistributionCheck(
            code="zeros",
            status="unknown",
            sentence=f"{' '.join(column.sentence for column in suspect)} A sampler that kept one id there (greedy, "
            "a low temperature, a small top-p) looks like this, and so do values that were filled in.",
            count=sum(column.unlikely for column in suspect),
            of=len(logp_mu_N),
            evidence=evidence,
        )
    unlikely = sum(column.unlikely for column in columns)
    return DistributionCheck(
        code="zeros",
        status="pass",
        sentence=f"Of {count(sum(column.zeros for column in columns), 'log-prob')} examined that are exactly 0 "
        f"the other side is below {_UNLIKELY} at {unlikely:,}, not clearly more often than beside them.",
        count=unlikely,
        of=len(logp_mu_N),
        evidence=evidence,
    )
