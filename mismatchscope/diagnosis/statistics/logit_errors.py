"""Where the difference of two rows of logits lies: at which ids, and in which directions.

Shapes: M tokens whose distributions are known, V vocabulary, R directions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..sample import Sample, statistic
from .distributions import LEAST_LOGP, rows


class FewIds(NamedTuple):
    """The share of the squared difference of the logits at a tenth of the ids, and how many rows say so. Each row
    is taken about its median, which ids that do not differ have."""

    share: float
    rows: int


@statistic
def at_few_ids(sample: Sample) -> FewIds | None:
    """A tenth of the ids that are seen holds a tenth of it where all rows of the head differ alike."""
    found = rows(sample)
    if found is None or found.ids is not None or len(found.token_M) < 24:
        return None
    seen = (found.mu > LEAST_LOGP) & (found.pi > LEAST_LOGP)
    with np.errstate(invalid="ignore"):
        difference = np.where(seen, found.pi - found.mu, np.nan)
    difference[~seen.any(axis=1)] = 0.0
    shown_V = seen.sum(axis=0) >= 3
    if np.count_nonzero(shown_V) < 50:
        return None
    with np.errstate(invalid="ignore"):
        difference = difference[:, shown_V] - np.nanmedian(difference, axis=1, keepdims=True)
    square_V = np.nanmean(difference**2, axis=0)
    total = float(square_V.sum())
    if total <= 0:
        return None
    few = max(1, len(square_V) // 10)
    return FewIds(float(np.sort(square_V)[-few:].sum()) / total, len(found.token_M))
