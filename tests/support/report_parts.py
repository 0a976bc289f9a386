"""Figures from which example reports are made: means, statistics, exceedance curves, the data of every chart."""

from __future__ import annotations

import numpy as np

from mismatchscope.measures.results import (
    Exceedance,
    Interval,
    Statistic,
)
from mismatchscope.reports.chart_fields import ChartData, Histogram, PositionBin, Scatter
from mismatchscope.reports.worst_fields import ContextToken

HOSTILE = "<script>alert(1)</script> ]]> `|` \x1b[31m \u202e"


def mean(value: float, low: float | None = None, high: float | None = None) -> Interval:
    return Interval(value=value, low=low, high=high, n=24576, clusters=128)


def statistic(estimator: str, *figures: float | None) -> Statistic:
    names = ("mean", "low", "high", "p50", "p90", "p99", "p999", "max")
    return Statistic(**dict(zip(names, figures, strict=True)), n=24576, clusters=128, estimator=estimator)


def curve(scale: float, shape: float, n: int = 24576, prompts: int = 128) -> tuple[Exceedance, ...]:
    """Exceedance of a Lomax tail at three points a decade."""
    points = []
    for tau in [float(f"{step}e{exponent}") for exponent in range(-6, 0) for step in (1, 2, 5)]:
        tokens = round(n * (1 + tau / scale) ** -shape) / n
        of_prompts = round(prompts * (1 - (1 - tokens) ** (n / prompts))) / prompts
        points.append(
            Exceedance(
                tau=tau,
                tokens_lower=tokens,
                prompts_lower=of_prompts,
                tokens=tokens,
                tokens_upper=min(1.0, tokens * 1.15 + 3 / n),
                prompts=of_prompts,
                prompts_upper=min(1.0, of_prompts + 3 / prompts),
            )
        )
    return tuple(points)


def figures() -> ChartData:
    rng = np.random.default_rng(7)
    log_ratio = rng.standard_t(2.5, 20000) * 0.008
    edges = np.exp(np.linspace(-0.2, 0.2, 42))
    x = 1 / (1 + np.exp(-rng.normal(2.0, 2.5, 800)))
    noise = rng.standard_t(2.5, 800) * 0.03
    lengths = rng.integers(8, 96, 400)

    def logistic(shift: np.ndarray) -> list[float]:
        return (1 / (1 + (1 - x) / x * np.exp(-shift))).tolist()

    bins = []
    for low in range(0, 96, 8):
        mean = 0.0018 + 0.00001 * low + float(rng.normal(0, 0.0001))
        bins.append(
            PositionBin(
                low=low, high=low + 7, n=2048, mean=mean, p99=mean * 12, max=mean * 60, floor_mean=mean * 0.1
            )
        )
    return ChartData(
        ratio_histogram=Histogram(
            edges=edges.tolist(),
            counts=np.histogram(np.exp(log_ratio), edges)[0].tolist(),
            floor_counts=np.histogram(np.exp(log_ratio * 0.1), edges)[0].tolist(),
        ),
        probability_scatter=Scatter(
            x=x.tolist(), y=logistic(noise * 3), n_total=24576, floor_y=logistic(noise * 0.3)
        ),
        tv_by_position=tuple(bins),
        log_ratio_by_length=Scatter(
            x=lengths.tolist(),
            y=(rng.normal(0, 1, 400) * 0.015 * np.sqrt(lengths)).tolist(),
            n_total=512,
            floor_y=(rng.normal(0, 1, 400) * 0.0015 * np.sqrt(lengths)).tolist(),
        ),
        floor_exceedance=curve(0.00008, 1.4),
    )


def context(words: list[str], values: list[float | None]) -> list[ContextToken]:
    return [ContextToken(text=text, tv=tv) for text, tv in zip(words, values, strict=True)]
