"""Values that no log-prob has, that stand where none was recorded, or that were stored in less precision."""

from __future__ import annotations

import numpy as np

from ...comparison.fillers import Fillers
from ...measures.log_results import DistributionCheck
from ...reports.text import count, number, share
from ..rows import Rejected
from .examined import ExaminedResponses

_GRADED_BELOW = -0.01  # nearer to 0 a float32 log-softmax repeats its last digits
_REPEATS = 10
_TIMES = 5


def value_checks(fillers: Fillers, rejected: Rejected, examined: ExaminedResponses) -> list[DistributionCheck]:
    return [
        illegal_values(rejected, fillers.behavior.rows),
        filled_values(fillers),
        repeated_value(examined),
        precision(fillers),
    ]


def illegal_values(rejected: Rejected, counted: int) -> DistributionCheck:
    """NaN, null, positive and impossible values, as they were rejected."""
    tokens = sum(rejected.tokens.values())
    if not tokens:
        sentence = "No log-prob of μ or π_old is null, NaN, above 0 or impossible."
        return DistributionCheck(
            code="illegal_values", status="pass", sentence=sentence, count=0, of=counted, evidence={}
        )
    listed = "; ".join(f"{reason} ({n:,})" for reason, n in sorted(rejected.tokens.items()))
    return DistributionCheck(
        code="illegal_values",
        status="fail",
        sentence=f"{tokens:,} of {counted + tokens:,} tokens are in no figure: {listed}.",
        count=tokens,
        of=counted + tokens,
        evidence=dict(sorted(rejected.tokens.items())),
        fix="mend what writes them; leave tokens that nobody scored out with the mask",
    )


def filled_values(fillers: Fillers) -> DistributionCheck:
    """Zeros in runs, whole numbers such as −100, one value up to the end, and columns of zeros alone."""
    found = list(fillers.found(zeros_may_be_sampled=True))
    of = fillers.behavior.rows
    messages = [filler.message for filler in found]
    rows = max((filler.rows for filler in found), default=0)
    zeros = {
        "behavior": fillers.behavior.zeros,
        "reference": fillers.reference.zeros,
    }
    fix = "leave tokens that nobody scored out with a mask, and record the log-probs of the others"
    if of and fillers.reference.zeros == of and fillers.behavior.zeros < of:
        messages, rows = [f"All {of:,} log-probs of the reference are exactly 0: the column is a placeholder."], of
        fix = "turn on the trainer's own log-probs; some trainers write zeros where they skip that forward pass"
    return DistributionCheck(
        code="filled_values",
        status="fail" if messages else "pass",
        sentence=" ".join(messages)
        or f"No run of zeros, whole number or constant tail stands where a log-prob should ({zeros['behavior']:,} "
        f"zeros in the behaviour's column, {zeros['reference']:,} in the reference's).",
        count=rows,
        of=of,
        evidence={"zeros": zeros, "kinds": sorted({f"{filler.kind} ({filler.side})" for filler in found})},
        fix=fix if messages else None,
    )


def repeated_value(examined: ExaminedResponses) -> DistributionCheck:
    """One value that is far more frequent than any other, at many places of responses: −1, −5, a default."""
    for side, logp_CW in (("behaviour", examined.mu_CW), ("reference", examined.pi_CW)):
        found = _most_frequent(logp_CW)
        if found is None:
            continue
        value, times, second, of = found
        return DistributionCheck(
            code="repeated_value",
            status="fail",
            sentence=f"{times:,} of the {of:,} log-probs examined of the {side} ({share(times / of)}) are exactly "
            f"{value:.6g}, at many positions; the next most frequent value is there {count(second, 'time')}. It "
            "was filled in.",
            count=times,
            of=of,
            evidence={"side": side, "value": value, "next": second},
            fix="leave tokens that nobody scored out with a mask, and record the log-probs of the others",
        )
    tokens = int(examined.tokens_C.sum())
    return DistributionCheck(
        code="repeated_value",
        status="pass" if tokens >= _REPEATS else "unknown",
        sentence=f"No single value stands out among {count(tokens, 'log-prob')} examined on each side.",
        count=0,
        of=tokens,
    )


def _most_frequent(logp_CW: np.ndarray) -> tuple[float, int, int, int] | None:
    """(value, how often, how often the next one, of how many) where one value was filled in.

    Equal contexts have equal log-probs, such as the first tokens after one prompt; but each context is at one
    position.
    """
    graded_CW = logp_CW < _GRADED_BELOW
    position = np.nonzero(graded_CW)[1]
    value, times = np.unique(logp_CW[graded_CW], return_counts=True)
    if not len(value):
        return None
    order = np.argsort(times)
    most, second = int(times[order[-1]]), int(times[order[-2]]) if len(order) > 1 else 0
    if most < _REPEATS or most <= _TIMES * second:
        return None
    repeated = float(value[order[-1]])
    at = np.bincount(position[logp_CW[graded_CW] == repeated])
    if 2 * at.max() > most:
        return None
    return repeated, most, second, int(np.isfinite(logp_CW).sum())


def precision(fillers: Fillers) -> DistributionCheck:
    """Whether one column alone lies on the grid of bfloat16 or float16."""
    rounded = fillers.rounded()
    graded = min(fillers.behavior.graded, fillers.reference.graded)
    if rounded is not None:
        return DistributionCheck(
            code="precision",
            status="fail",
            sentence=rounded.message,
            of=graded,
            evidence={"side": rounded.side, "bits": rounded.bits, "share": rounded.share},
            fix="store log-probs in float32: the rounding limits what can be resolved, and cannot be undone",
        )
    if graded < 100:
        sentence = "Too few log-probs are far enough from 0 to tell how precisely they were stored."
        return DistributionCheck(code="precision", status="unknown", sentence=sentence, of=graded)
    held = number(max(fillers.behavior.bits8, fillers.reference.bits8) / graded)
    return DistributionCheck(
        code="precision",
        status="pass",
        sentence="Neither column alone lies on the grid of bfloat16 or of float16.",
        of=graded,
        evidence={"largest_share_on_the_bfloat16_grid": float(held)},
    )
