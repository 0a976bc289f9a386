"""How far a mean has moved between two samples that have prompts in common.

Shape suffixes: C clusters (prompts), those of either sample.
"""

from __future__ import annotations

import numpy as np

from .intervals import ratio_interval
from .results import Interval

Array = np.ndarray


def paired_change(
    sum_C: Array,
    count_C: Array,
    base_sum_C: Array,
    base_count_C: Array,
    *,
    factor: float = 1.0,
    confidence: float = 0.95,
) -> Interval:
    """Interval of Σ sum / Σ count − `factor` · Σ base_sum / Σ base_count over independent prompts.

    Row c of all four belongs to one prompt; one that a sample lacks has count 0 there. Each ratio is linearised,
    and a prompt's two residuals are subtracted before their spread is taken (Cochran 1977, "Sampling Techniques",
    chapter 6, of two ratios on one sample), so that what a prompt has in both samples cancels and the rest adds
    up. `low` and `high` are None with fewer than two prompts.
    """
    ours, ours_residual_C = _residuals(sum_C, count_C)
    base, base_residual_C = _residuals(base_sum_C, base_count_C)
    value, residual_C = ours - factor * base, ours_residual_C - factor * base_residual_C
    clusters, n = residual_C.size, int(count_C.sum())
    if clusters > 1 and not residual_C.any():
        return Interval(value, value, value, confidence, n, clusters, "paired-constant")
    # The mean of these is `value`, and their spread is that of the difference of the ratios.
    spread = ratio_interval(clusters * residual_C, np.ones(clusters), confidence=confidence)
    if spread.low is None or spread.high is None:
        return Interval(value, None, None, confidence, n, clusters, spread.method)
    centre = float(spread.value or 0.0)
    low, high = value + spread.low - centre, value + spread.high - centre
    return Interval(value, low, high, confidence, n, clusters, "paired-by-prompt")


def _residuals(sum_C: Array, count_C: Array) -> tuple[float, Array]:
    """The pooled mean, and what each prompt adds to its error [C]; they sum to 0."""
    total = float(count_C.sum())
    mean = float(sum_C.sum()) / total
    return mean, (sum_C - mean * count_C) / total
