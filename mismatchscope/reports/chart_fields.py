"""Fields of the report that the charts draw."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from ..measures.results import Exceedance, result


@result
class Histogram:
    edges: list[float]
    counts: list[int]
    floor_counts: list[int] | None = None

    def __post_init__(self) -> None:
        _check_lengths(len(self.edges) - 1, self.counts, self.floor_counts)
        if not self.counts or not _is_rising(self.edges):
            raise ValueError("edges do not rise")
        if any(count < 0 for counts in (self.counts, self.floor_counts or ()) for count in counts):
            raise ValueError("a count is negative")


@result
class Scatter:
    """A random sample of points, small enough to draw; `n_total` is how many there were."""

    x: list[float]
    y: list[float]
    n_total: int
    floor_y: list[float] | None = None

    def __post_init__(self) -> None:
        _check_lengths(len(self.x), self.y, self.floor_y)


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


def _check_lengths(length: int, *columns: Sequence[float] | None) -> None:
    found = [len(column) for column in columns if column is not None]
    if any(n != length for n in found):
        raise ValueError(f"{length} and {' and '.join(map(str, found))} entries do not belong together")


def _is_rising(edges: Sequence[float]) -> bool:
    return all(a < b for a, b in pairwise(edges))
