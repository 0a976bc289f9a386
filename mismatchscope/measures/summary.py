"""One statistic of the report: its mean with an interval, and its upper tail.

Shape suffixes: N tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mismatchscope.measures.intervals import clustered_mean


@dataclass(frozen=True)
class Summary:
    """`low` and `high` bound the mean. A quantile is None where the sample is too small to show it."""

    mean: float
    low: float | None
    high: float | None
    p50: float | None
    p90: float | None
    p99: float | None
    p999: float | None
    max: float
    n: int
    clusters: int
    confidence: float
    method: str
    estimator: str


def summarise(
    value_N: np.ndarray,
    cluster_N: np.ndarray,
    *,
    estimator: str,
    confidence: float = 0.95,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Summary:
    """Mean, clustered interval, exact quantiles and maximum of a per-token quantity.

    `estimator` names what the values are ("exact", "binary-tv", "k3", …); `bounds` is the range of the
    mean, (0, 1) for a total variation. +inf is a value like any other: the mean and the quantiles it
    reaches are +inf. Raises EmptyComparisonError on no values and NotComparableError on NaN.
    """
    mean = clustered_mean(value_N, cluster_N, confidence=confidence, bounds=bounds)
    p50, p90, p99, p999 = sample_quantiles(value_N, (0.5, 0.9, 0.99, 0.999))
    return Summary(
        mean=mean.value,
        low=mean.low,
        high=mean.high,
        p50=p50,
        p90=p90,
        p99=p99,
        p999=p999,
        max=float(np.max(value_N)),
        n=mean.n,
        clusters=mean.clusters,
        confidence=confidence,
        method=mean.method,
        estimator=estimator,
    )


def sample_quantiles(value_N: np.ndarray, q: tuple[float, ...]) -> tuple[float | None, ...]:
    """Exact sample quantiles, always one of the values: the ⌈qN⌉-th smallest (numpy's `inverted_cdf`).

    None where fewer than 1/(1-q) values make the q-quantile the maximum under another name: p99 needs
    100 values, p999 needs 1000.
    """
    value_N = np.asarray(value_N, dtype=np.float64)
    # The 1e-9 keeps decimal fractions such as 0.999 on the side of the integer they mean.
    rank = [math.ceil(level * value_N.size - 1e-9) - 1 for level in q]
    resolved = [value_N.size * (1 - level) >= 1 - 1e-9 for level in q]
    wanted = sorted({r for r, ok in zip(rank, resolved, strict=True) if ok})
    part_N = np.partition(value_N, wanted) if wanted else value_N
    return tuple(float(part_N[r]) if ok else None for r, ok in zip(rank, resolved, strict=True))
