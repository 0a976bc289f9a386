"""What the charts of a report draw, reduced to a few hundred numbers each."""

from __future__ import annotations

import numpy as np

from ..measures.alpha import exceedance_curve
from ..measures.results import Exceedance
from ..measures.selected_states import POINTS
from ..reports.chart_fields import ChartData, Histogram, PositionBin, Scatter
from .pair import PolicyPair
from .statistics import PairStatistics

_RATIO_BINS = 61
_WIDEST = 300.0  # as a power of 10: a ratio beyond it is all but infinite in float64


def chart_data_of(pair: PolicyPair, floor: PolicyPair | None) -> ChartData:
    """The data of every chart; `floor` is the larger repeat floor, drawn on the same axes where there is one."""
    ours, noise = pair.statistics, None if floor is None else floor.statistics
    return ChartData(
        ratio_histogram=_ratio_histogram(ours, noise),
        probability_scatter=_probability_scatter(ours, noise),
        tv_by_position=tuple(_tv_by_position(ours, noise)),
        log_ratio_by_length=_log_ratio_by_length(ours, noise),
        floor_exceedance=() if noise is None else _exceedance(noise, pair.context.confidence),
    )


def _ratio_histogram(ours: PairStatistics, floor: PairStatistics | None) -> Histogram | None:
    """Counts of log10 ρ on symmetric bins that hold every finite ratio; ρ = 0 and ∞ fall into the end bins."""
    widest = ours.sketches["log_ratio"].largest_finite_magnitude()
    if widest is None:
        return None
    widest = min(max(widest / np.log(10), 1e-9), _WIDEST)
    edges = np.linspace(-widest, widest, _RATIO_BINS + 1)

    def counts(statistics: PairStatistics) -> list[int]:
        return statistics.sketches["log_ratio"].histogram(edges * np.log(10)).tolist()

    return Histogram(
        edges=(10.0**edges).tolist(),
        counts=counts(ours),
        floor_counts=counts(floor) if floor is not None else None,
    )


def _probability_scatter(ours: PairStatistics, floor: PairStatistics | None) -> Scatter:
    points = ours.points.points()
    floor_y = None
    if floor is not None:
        noise = floor.points.points()
        if np.array_equal(points[:, :2], noise[:, :2]):  # of the same states
            floor_y = noise[:, 3].tolist()
    return Scatter(
        x=points[:, 2].tolist(),
        y=points[:, 3].tolist(),
        n_total=ours.points.n,
        floor_y=floor_y,
    )


def _tv_by_position(ours: PairStatistics, floor: PairStatistics | None) -> list[PositionBin]:
    """Mean, p99 and maximum of the best known TV in bins of equal position width."""
    bins = []
    for found in ours.best_tv.bins():
        n, mean = (0, np.nan) if floor is None else floor.best_tv.within(found.low, found.high + 1)
        bins.append(PositionBin(**found._asdict(), floor_mean=mean if n else None))
    return bins


def _log_ratio_by_length(ours: PairStatistics, floor: PairStatistics | None) -> Scatter | None:
    length, log_ratio = ours.sequences.length, ours.sequences.log_ratio
    finite = np.flatnonzero(np.isfinite(log_ratio))
    if not finite.size:
        return None
    chosen = finite[_sample(finite.size)]
    noise = None if floor is None else floor.sequences.log_ratio
    return Scatter(
        x=length[chosen].tolist(),
        y=log_ratio[chosen].tolist(),
        n_total=length.size,
        floor_y=noise[chosen].tolist() if noise is not None and noise.shape == log_ratio.shape else None,
    )


def _exceedance(floor: PairStatistics, confidence: float) -> tuple[Exceedance, ...]:
    upper = floor.tv_upper if floor.bounded else None
    return exceedance_curve(floor.tv_lower, upper, confidence=confidence)


def _sample(size: int) -> np.ndarray:
    """Indices of at most `POINTS` of `size` things, chosen at random but always the same."""
    if size <= POINTS:
        return np.arange(size)
    return np.sort(np.random.default_rng(0).choice(size, POINTS, replace=False))
