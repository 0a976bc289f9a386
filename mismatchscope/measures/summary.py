"""One statistic of the report: its mean with an interval, and its upper tail.

Shape suffixes: N tokens.
"""

from __future__ import annotations

import numpy as np

from .intervals import ANY, clustered_mean
from .results import Interval, Statistic
from .sketches import sample_quantiles

LEVELS = (0.5, 0.9, 0.99, 0.999)
"""Of the quantiles that a statistic names."""


def summarise(
    value_N: np.ndarray,
    cluster_N: np.ndarray,
    *,
    estimator: str,
    confidence: float = 0.95,
    bounds: tuple[float, float] = ANY,
) -> Statistic:
    """Mean, clustered interval, exact quantiles and maximum of a quantity with one value a token, or a response.

    `estimator` names what the values are ("exact", "binary-tv", "k3", …); `bounds` is the range of the
    mean, (0, 1) for a total variation. +inf is a value like any other: the mean and the quantiles it
    reaches are +inf. Raises EmptyComparisonError on no values and NotComparableError on NaN.
    """
    mean = clustered_mean(value_N, cluster_N, confidence=confidence, bounds=bounds)
    return statistic_of(mean, sample_quantiles(value_N, LEVELS), float(np.max(value_N)), estimator)


def statistic_of(
    mean: Interval, quantiles: tuple[float | None, ...], largest: float | None, estimator: str
) -> Statistic:
    """The statistic of a mean, its quantiles at `LEVELS` and its maximum."""
    p50, p90, p99, p999 = quantiles
    return Statistic(
        mean=mean.value,
        low=mean.low,
        high=mean.high,
        confidence=mean.confidence,
        p50=p50,
        p90=p90,
        p99=p99,
        p999=p999,
        max=largest,
        n=mean.n,
        clusters=mean.clusters,
        method=mean.method,
        estimator=estimator,
    )
