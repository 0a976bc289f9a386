"""Confidence limits of the quantiles that the report has of tokens."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ..measures.quantile_limits import View
from ..measures.results import Statistic, TokenMeasures
from ..measures.sketches import QuantileSketch
from ..measures.summary import LEVELS
from .statistics import PairStatistics

_NAMES = ("p50", "p90", "p99", "p999")


class _Source(NamedTuple):
    """Which counted values a figure's quantiles are of, and the rising function that makes them the figure's."""

    name: str
    view: View = "value"
    transform: Callable[[float], float] = float


def _exp(value: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.exp(value))


_SOURCES = {
    "tv": _Source("tv"),
    "tv_lower": _Source("tv_lower"),
    "tv_upper": _Source("tv_upper"),
    "kl": _Source("kl"),
    "k1": _Source("log_ratio", "negated"),
    "k2": _Source("log_ratio", "absolute", lambda distance: distance * distance / 2),
    "k3": _Source("k3"),
    "ratio": _Source("log_ratio", "value", _exp),
    "shortfall": _Source("log_ratio", "negated", lambda k1: -math.expm1(min(-k1, 0.0))),
    "abs_logprob_diff": _Source("log_ratio", "absolute"),
    "exp_abs_diff": _Source("log_ratio", "absolute", _exp),
}


def with_quantile_limits(token: TokenMeasures, statistics: PairStatistics, confidence: float) -> TokenMeasures:
    """The same figures, with limits beside the quantiles of those that are counted by prompt."""
    limited: dict[str, Any] = {
        name: _limited(statistic, source, statistics, confidence)
        for name, source in _SOURCES.items()
        if (statistic := getattr(token, name)) is not None and statistic.p50 is not None
    }
    return replace(token, **limited)


def _limited(statistic: Statistic, source: _Source, statistics: PairStatistics, confidence: float) -> Statistic:
    sketch = _seen(statistics.sketches[source.name], source.view)
    shares = statistics.shares[source.name]
    limits: dict[str, tuple[float | None, float | None]] = {}
    for name, level, value in zip(_NAMES, LEVELS, sketch.quantiles(LEVELS), strict=True):
        # A figure of the same name from other evidence is of other values.
        if value is None or getattr(statistic, name) != source.transform(value):
            continue
        levels = shares.levels(level, view=source.view, confidence=confidence)
        if levels is not None:
            low, high = (None if end is None else source.transform(end) for end in sketch.quantiles(levels))
            limits[name] = low, high
    return replace(statistic, quantile_limits=limits)


def _seen(sketch: QuantileSketch, view: View) -> QuantileSketch:
    return {"value": lambda: sketch, "negated": sketch.negated, "absolute": sketch.absolute}[view]()
