"""A statistic with its interval, over prompts or sequences and never over tokens.

Shapes: C clusters, N values.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

Array = np.ndarray

_Z95 = 1.959964


class Stat(NamedTuple):
    """A value, its 95 % interval and the number of observations; None is what the data do not say."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0

    def above(self, limit: float) -> bool:
        """Whether the whole interval is above; of one without an interval, never."""
        return self.low is not None and self.low > limit

    def below(self, limit: float) -> bool:
        return self.high is not None and self.high < limit


NOTHING = Stat(None)


def ratio_of_sums(sum_C: Array, count_C: Array) -> Stat:
    """Σ sums / Σ counts, with the sandwich interval of clusters (Cochran 1977, 6.3): n is the sum of the counts."""
    kept_C = count_C > 0
    sum_C, count_C = sum_C[kept_C], count_C[kept_C]
    clusters, total = len(count_C), float(count_C.sum())
    if not clusters:
        return NOTHING
    value, n = float(sum_C.sum()) / total, int(total)
    if clusters < 2:
        return Stat(value, None, None, n)
    residual_C = sum_C - value * count_C
    error = math.sqrt(float(residual_C @ residual_C) * clusters / (clusters - 1)) / total
    return Stat(value, value - _Z95 * error, value + _Z95 * error, n)


def standard_error(stat: Stat) -> float | None:
    """Of a statistic with a symmetric interval."""
    return None if stat.low is None or stat.high is None else (stat.high - stat.low) / (2 * _Z95)


def root(stat: Stat, scale: float = 1.0) -> Stat:
    """Square root of a mean square, times a scale. The interval is that of its logarithm: a few large squares make
    one wide, and none reaches 0."""
    if stat.value is None or stat.value <= 0 or stat.high is None:
        return Stat(None if stat.value is None else scale * math.sqrt(max(stat.value, 0.0)), n=stat.n)
    value, times = scale * math.sqrt(stat.value), math.exp((stat.high - stat.value) / (2 * stat.value))
    return Stat(value, value / times, value * times, stat.n)


def share(count: int, of: int) -> Stat:
    """A share, with Wilson's interval (1927)."""
    if not of:
        return NOTHING
    value, square = count / of, _Z95**2
    centre = (value + square / (2 * of)) / (1 + square / of)
    half = _Z95 * math.sqrt(value * (1 - value) / of + square / (4 * of**2)) / (1 + square / of)
    return Stat(value, max(0.0, centre - half), min(1.0, centre + half), of)


def correlation(x_N: Array, y_N: Array) -> float | None:
    """Pearson's; None of fewer than three values, or of ones that do not vary."""
    if len(x_N) < 3:
        return None
    x_N, y_N = x_N - x_N.mean(), y_N - y_N.mean()
    norm = float(np.sqrt((x_N @ x_N) * (y_N @ y_N)))
    return float(x_N @ y_N) / norm if norm > 0 else None


def regression(x: Array, y: Array) -> tuple[float, float]:
    """Slope of the least-squares line of y on x [N], and its standard error: 0 ± ∞ where x does not vary. scipy's
    linregress gives the same, and takes longer to import than a diagnosis."""
    x, y = x - x.mean(), y - y.mean()
    squares = float(x @ x)
    if squares <= 0:
        return 0.0, math.inf
    slope = float(x @ y) / squares
    residual = y - slope * x
    return slope, math.sqrt(float(residual @ residual) / max(len(x) - 2, 1) / squares)
