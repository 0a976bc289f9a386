"""Fields of the report that the charts draw."""

from __future__ import annotations

from ..measures.results import Exceedance, result


@result
class Histogram:
    edges: list[float]
    counts: list[int]
    floor_counts: list[int] | None = None


@result
class Scatter:
    """A random sample of points, small enough to draw; `n_total` is how many there were."""

    x: list[float]
    y: list[float]
    n_total: int
    floor_y: list[float] | None = None


@result
class PositionBin:
    low: int
    high: int
    n: int
    mean: float
    max: float
    p99: float | None = None
    floor_mean: float | None = None


@result
class ChartData:
    """What the charts draw. `floor_*` is the larger repeat floor, on the same axes."""

    ratio_histogram: Histogram | None = None
    probability_scatter: Scatter | None = None
    tv_by_position: tuple[PositionBin, ...] = ()
    log_ratio_by_length: Scatter | None = None
    floor_exceedance: tuple[Exceedance, ...] = ()
