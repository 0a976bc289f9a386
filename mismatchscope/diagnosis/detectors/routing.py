"""Tokens that other experts served."""

from __future__ import annotations

import numpy as np

from ..detector import Finding, detector, of_sequences
from ..sample import Sample
from ..statistics.grouping import by_metadata, two_means
from ..statistics.position import flips
from ..statistics.size import at_floor, gap, tail
from ..words import number, percent, some_sequences
from .grouping import meaning
from .position import positions_picture

_BURSTS = 100.0
"""Root mean square over the median: where half of the tokens are at the floor and a jump of some is this large."""


@detector("routing", tokens=200)
def bursts(sample: Sample) -> Finding | None:
    """Many tokens at the floor and some far from it, from a place of its own in each response on."""
    size, spread, level, own = gap(sample), tail(sample), at_floor(sample), flips(sample)
    if size.value is None or spread is None or level.value is None:
        return None
    parts = two_means(sample)
    if parts is None or parts.separation > 6 or not 0.25 < level.value < 0.8:
        return None
    if size.value < 100 or spread < _BURSTS:
        return None
    far_N = sample.gap_N > 10
    rising = int(np.count_nonzero((own.at_S >= 0) & own.rises_S))
    starts = f"; in {rising:,} responses it begins at a place of their own" if rising else ""
    return Finding(
        causes=("routing",),
        why=f"{percent(level.value)} of the tokens are at the floor and the others far from it, with R "
        f"{number(size.value)}{starts}: as where a token is sent to another expert.",
        statistic="share of tokens at the floor",
        value=level,
        null=0.95,
        explained_N=far_N,
        rest=sample.without(far_N),
        picture=positions_picture(sample, "relative"),
        **some_sequences(sample, far_N),
    )


_MIXED = (
    "worker",
    "staleness",
    "stale_weights",
    "adapter",
    "packing",
    "padding",
    "stale_prefix",
    "routing_replay",
)


@detector(*_MIXED, "context", tokens=200)
def some_responses(sample: Sample) -> Finding | None:
    """Responses at the floor and others far from it, and no column of metadata that tells them apart."""
    parts, size = two_means(sample), gap(sample)
    if parts is None or size.value is None or parts.low_gap.value is None or parts.high_gap.value is None:
        return None
    clear = parts.separation > 4.5 and parts.high_gap.value > 3 * max(parts.low_gap.value, 1.0)
    if not clear or parts.low_gap.value > 1.7 or not 0.08 < parts.share < 0.92:
        return None
    causes = _left_over(sample, parts.separation)
    if not causes:
        return None
    explained_N = of_sequences(sample, parts.high_S)
    return Finding(
        causes=causes,
        why=f"R is {number(parts.high_gap.value)} floors in {percent(parts.share)} of the responses and "
        f"{number(parts.low_gap.value)} in the others, and no column of the log tells which.",
        statistic="R of the responses that are off, in floors",
        value=parts.high_gap,
        null=parts.low_gap.value,
        explained_N=explained_N,
        rest=sample.without(explained_N),
        false_alarm=None,
        **some_sequences(sample, explained_N),
    )


def _left_over(sample: Sample, separation: float) -> tuple[str, ...]:
    """Without the causes whose column is there and separates nothing."""
    columns = by_metadata(sample)
    told = {cause for groups in columns for cause in meaning(groups.name)}
    if told:
        # What is left of whole rows with gross gaps is what was handed over by row.
        return ("routing_replay", "context") if separation > 10 else ()
    return _MIXED
