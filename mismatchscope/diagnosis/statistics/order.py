"""From which sequence on a gap is there, where they are in the order of a log.

Shapes: S sequences, K those with a level, U units that are permuted, C cuts.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..evidence import Array
from ..sample import Sample, statistic
from .grouping import FEWEST_SEQUENCES, clearest, gap_of_sequences, level_S
from .stat import Stat, regression

_FEWEST_BESIDE = 2
"""Units on either side of a cut."""
_MOST_CUTS = 64


class Onset(NamedTuple):
    """The place in the order of the sequences from which on they are farther from the floor: the clearest cut in
    two, with `explained` and `p` as in `Groups`. `growth` is the slope of the level of those in `high_S` over their
    order, from 0 for the first to 1 for the last one, with its standard error: 0 of a jump."""

    first: int
    low: Stat
    high: Stat
    high_S: Array
    explained: float
    p: float
    growth: tuple[float, float]
    sound_of_high: float


@statistic
def onset(sample: Sample) -> Onset | None:
    """None where sequences are few, or those before the clearest cut are the farther ones."""
    level = level_S(sample)
    known = np.flatnonzero(np.isfinite(level))
    if len(known) < FEWEST_SEQUENCES:
        return None
    # Responses to a prompt that stand together have much in common: they are one unit.
    prompt_K = sample.evidence.prompt_S[known]
    begins_U = np.flatnonzero(np.concatenate([[True], prompt_K[1:] != prompt_K[:-1]]))
    units = len(begins_U)
    if units < FEWEST_SEQUENCES:
        return None
    level_U = np.add.reduceat(level[known], begins_U) / np.diff([*begins_U, len(known)])
    cuts = np.unique(np.linspace(_FEWEST_BESIDE, units - _FEWEST_BESIDE, _MOST_CUTS).round().astype(int))
    weight_CU = (np.arange(units) >= cuts[:, None]) - 1 + cuts[:, None] / units
    explained, p, best = clearest(level_U, weight_CU / np.linalg.norm(weight_CU, axis=1, keepdims=True))
    first = int(known[begins_U[cuts[best]]])
    low, high = known[known < first], known[known >= first]
    if level[low].mean() >= level[high].mean():
        return None
    high_S = np.zeros(len(level), dtype=bool)
    high_S[high] = True
    return Onset(
        first,
        gap_of_sequences(sample, low),
        gap_of_sequences(sample, high),
        high_S,
        explained,
        p,
        regression(np.linspace(0.0, 1.0, len(high)), level[high]),
        float(np.mean(level[high] <= np.quantile(level[low], 0.75))),
    )
