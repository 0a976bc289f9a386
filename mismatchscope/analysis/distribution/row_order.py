"""Are the rows of both columns in one order, and have the two columns of a row to do with each other?"""

from __future__ import annotations

import numpy as np

from ...measures.log_results import DistributionCheck
from ...measures.row_matching import ENOUGH, matching_rows
from ...reports.text import count, share
from .examined import ExaminedResponses

_UNCERTAIN = 8
_HEAD = 48
_CANDIDATES = 1024  # each is held against every other
_CORRELATION = _AGREEING = 0.5
"""A response's columns are unrelated where they correlate less, and less than half of their log-probs are within a
factor of two of each other."""
_MATCHES = 3
_UNRELATED, _UNRELATED_LEAST = 0.1, 5
"""So large a share of responses, and so many, are no accident."""


def row_checks(examined: ExaminedResponses) -> list[DistributionCheck]:
    """Responses whose columns are unrelated, and those of them that another row's column fits."""
    tells_C = (np.count_nonzero(examined.uncertain_CW, axis=1) >= _UNCERTAIN) & (examined.tokens_C >= ENOUGH)
    tells_C &= np.isfinite(examined.correlation_C)
    unrelated_C = tells_C & (examined.correlation_C < _CORRELATION) & (examined.agreeing_C < _AGREEING)
    unrelated_C &= examined.shifts[0] == 0
    telling, unrelated = int(tells_C.sum()), int(unrelated_C.sum())
    if not telling:
        sentence = "No response is long and varied enough to tell whether its two columns belong together."
        return [
            DistributionCheck(code=code, status="unknown", sentence=sentence) for code in ("row_order", "related")
        ]
    of = f"{unrelated:,} of {count(telling, 'response')} that can tell"
    matched = 0
    if unrelated >= _MATCHES:
        candidates = np.flatnonzero(unrelated_C)[:_CANDIDATES]
        heads = (logp_CW[candidates, :_HEAD] for logp_CW in (examined.mu_CW, examined.pi_CW))
        matched = int((matching_rows(*heads) >= 0).sum())
    evidence = {"unrelated": unrelated, "matched": matched, "examined": len(examined)}
    if matched >= _MATCHES:
        partners = f"for {matched:,} of them another examined row's column fits"
        return [
            DistributionCheck(
                code="row_order",
                status="fail",
                sentence=f"The two columns of {of} are unrelated ({share(unrelated / telling)}), and {partners}: "
                "the rows of one column are in another order.",
                count=unrelated,
                of=telling,
                evidence=evidence,
                fix="join both sides by the response's id before they are written; a shuffle, a sort by length or "
                "a repack of one side alone does this",
            ),
            DistributionCheck(
                code="related",
                status="unknown",
                sentence="Rows are in another order, so their columns say nothing of each other.",
                evidence=evidence,
            ),
        ]
    in_order = DistributionCheck(
        code="row_order",
        status="pass",
        sentence=f"No other row's column fits better than a response's own ({of} have unrelated columns).",
        count=matched,
        of=telling,
        evidence=evidence,
    )
    if unrelated < max(_UNRELATED_LEAST, _UNRELATED * telling):
        return [
            in_order,
            DistributionCheck(
                code="related",
                status="pass",
                sentence=f"The two columns of {of} are unrelated.",
                count=unrelated,
                of=telling,
                evidence=evidence,
            ),
        ]
    return [
        in_order,
        DistributionCheck(
            code="related",
            status="fail",
            sentence=f"The two columns of {of} are unrelated ({share(unrelated / telling)}): they correlate below "
            f"{_CORRELATION}, and no other examined row's column fits.",
            count=unrelated,
            of=telling,
            evidence=evidence,
            fix="see whether both sides scored the same tokens with the same weights and the same prompt",
        ),
    ]
