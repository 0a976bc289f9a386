"""Columns and heads in 16 bits, and what is no precision: a side that does not give the same twice."""

from __future__ import annotations

import numpy as np

from ..detector import Finding, detector
from ..sample import Sample
from ..statistics.distributions import logit_grid
from ..statistics.size import gap
from ..statistics.stat import Stat
from ..statistics.values import SIDES, other, stored_bits
from ..words import NAMES, number, percent

_OF_A_HEAD = 0.08
"""Root mean square of z that a head in 16 bits makes at the most."""
_OF_THE_GAP = 0.5
"""Of the gap: noise of one side that is less does not make most of it."""
_TYPE = {8: "bfloat16", 11: "float16"}


@detector("stored_precision", tokens=30)
def stored(sample: Sample) -> Finding | None:
    """One side's log-probs have 8 or 11 significant bits, and the gap is no larger than that makes it."""
    found = stored_bits(sample)
    if found is None:
        return None
    rest = sample.mended(found.rest_N)
    before, after = gap(sample).value, gap(rest).value
    explains = before is not None and after is not None and (after < 1.5 or after < 0.6 * before)
    return Finding(
        causes=("stored_precision",),
        why=f"{percent(found.share)} of the log-probs of {NAMES[found.side]} need no more than {found.bits} "
        f"significant bits, and {percent(found.other)} of {NAMES[other(found.side)]}'s: the column was stored in "
        f"{_TYPE[found.bits]}, which moves a log-prob by up to 1/{2**found.bits} of it.",
        statistic=f"share of log-probs with {found.bits} significant bits",
        value=Stat(found.share, None, None, int(np.count_nonzero(sample.live_N))),
        null=found.other,
        explained_N=sample.live_N,
        rest=rest,
        harmless=not explains or (before is not None and before < 1.25),
    )


@detector("head_precision", needs=("distributions",), tokens=32)
def grid(sample: Sample) -> Finding | None:
    """The logits of one side alone are on a grid."""
    found, size = logit_grid(sample), gap(sample)
    if found is None or size.value is None:
        return None
    for side in SIDES:
        ours, theirs = found.share[side], found.share[other(side)]
        if not (ours > 0.8 and theirs < 0.5 * ours):
            continue
        # A head in 16 bits moves z by a few hundredths; far more is another fault.
        if size.value * sample.floor.value > _OF_A_HEAD:
            return None
        return Finding(
            causes=("head_precision",),
            why=f"{percent(ours)} of the differences of {NAMES[side]}'s logits are multiples of {found.step:g}, "
            f"and {percent(theirs)} of {NAMES[other(side)]}'s: its head has 16 bits.",
            statistic="share of logit differences on a grid",
            value=Stat(ours, None, None, int(np.count_nonzero(sample.live_N))),
            null=theirs,
            explained_N=sample.live_N,
            harmless=size.value < 1.25,
        )
    return None


@detector("dropout", "batch", "routing", tokens=30)
def unlike_itself(sample: Sample) -> Finding | None:
    """One side is so far from itself, where it computed the same tokens again, that it makes the gap."""
    again, size = sample.evidence.own_gap, gap(sample)
    if again is None or size.value is None or again.value < _OF_THE_GAP * size.value * sample.floor.value:
        return None
    value, most = again.value / sample.floor.value, again.most / sample.floor.value
    # Trainers drop out, and engines choose their batches.
    first = ("dropout", "batch") if again.side == "reference" else ("batch", "dropout")
    return Finding(
        causes=(*first, "routing"),
        why=f"{NAMES[again.side]} is {number(value)} floors from itself where it computed the same tokens again, "
        f"and the gap is {number(size.value)}; a sound side is at the most {number(most)} from itself.",
        statistic=f"R between two scores of {NAMES[again.side]}, in floors",
        value=Stat(value, None, None, size.n),
        null=most,
        explained_N=sample.live_N,
    )
