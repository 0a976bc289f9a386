"""What the charts of a report draw, reduced to a few hundred numbers each."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ..measures.alpha import exceedance_curve
from ..measures.summary import sample_quantiles
from ..reports.document import Exceedance, Figures, Histogram, PositionBin, Scatter
from .states import StateMeasures

_POINTS = 600  # a scatter of more points is a blot
_RATIO_BINS = 61
_POSITION_BINS = 24


def figures(measures: StateMeasures, floor: StateMeasures | None, *, confidence: float) -> Figures:
    """The data of every chart; `floor` is the larger repeat floor, drawn on the same axes where there is one."""
    return Figures(
        ratio_histogram=_ratio_histogram(measures, floor),
        probability_scatter=_probability_scatter(measures, floor),
        tv_by_position=_tv_by_position(measures, floor),
        log_ratio_by_length=_log_ratio_by_length(measures, floor),
        floor_exceedance=_floor_exceedance(floor, confidence),
    )


def _ratio_histogram(measures: StateMeasures, floor: StateMeasures | None) -> Histogram | None:
    """Counts of log10 ρ on symmetric bins that hold every finite ratio; ρ = 0 and ∞ fall into the end bins."""
    log_N = measures.sampled.log_ratio / np.log(10)
    finite_N = log_N[np.isfinite(log_N)]
    if finite_N.size == 0:
        return None
    widest = max(float(np.abs(finite_N).max()), 1e-9)
    edges = np.linspace(-widest, widest, _RATIO_BINS + 1)

    def counts(log_ratio: np.ndarray) -> list[int]:
        return np.histogram(np.clip(log_ratio / np.log(10), -widest, widest), edges)[0].tolist()

    return Histogram(
        edges=(10.0**edges).tolist(),
        counts=counts(measures.sampled.log_ratio),
        floor_counts=counts(floor.sampled.log_ratio) if floor is not None else None,
    )


def _probability_scatter(measures: StateMeasures, floor: StateMeasures | None) -> Scatter:
    chosen = _sample(measures.logp_mu_N.size)
    paired = floor is not None and np.array_equal(floor.sequence_id_N, measures.sequence_id_N)
    return Scatter(
        x=np.exp(measures.logp_mu_N[chosen]).tolist(),
        y=np.exp(measures.logp_pi_N[chosen]).tolist(),
        n_total=measures.logp_mu_N.size,
        floor_y=np.exp(floor.logp_pi_N[chosen]).tolist() if paired else None,
    )


def _tv_by_position(measures: StateMeasures, floor: StateMeasures | None) -> list[PositionBin]:
    """Mean, p99 and maximum of the best known TV in bins of equal position width."""
    last = int(measures.position_N.max())
    edges = np.unique(np.linspace(0, last + 1, min(_POSITION_BINS, last + 1) + 1).astype(int))
    bins = []
    for low, high in pairwise(edges):
        tv = _within(measures, low, high)
        if tv.size == 0:
            continue
        noise = _within(floor, low, high) if floor is not None else np.array([])
        bins.append(
            PositionBin(
                low=int(low),
                high=int(high) - 1,
                n=tv.size,
                mean=float(tv.mean()),
                p99=sample_quantiles(tv, (0.99,))[0],
                max=float(tv.max()),
                floor_mean=float(noise.mean()) if noise.size else None,
            )
        )
    return bins


def _within(measures: StateMeasures, low: int, high: int) -> np.ndarray:
    return measures.tv_best_N[(measures.position_N >= low) & (measures.position_N < high)]


def _log_ratio_by_length(measures: StateMeasures, floor: StateMeasures | None) -> Scatter | None:
    length, log_ratio = _sequence_points(measures)
    finite = np.isfinite(log_ratio)
    if not finite.any():
        return None
    chosen = np.flatnonzero(finite)[_sample(int(finite.sum()))]
    noise = _sequence_points(floor)[1] if floor is not None else None
    return Scatter(
        x=length[chosen].tolist(),
        y=log_ratio[chosen].tolist(),
        n_total=length.size,
        floor_y=noise[chosen].tolist() if noise is not None and noise.shape == log_ratio.shape else None,
    )


def _sequence_points(measures: StateMeasures) -> tuple[np.ndarray, np.ndarray]:
    offsets = measures.offsets_S1
    return np.diff(offsets), np.add.reduceat(measures.sampled.log_ratio, offsets[:-1])


def _floor_exceedance(floor: StateMeasures | None, confidence: float) -> list[Exceedance]:
    if floor is None:
        return []
    upper_N = floor.tv_upper_N if floor.bounded else None
    curve = exceedance_curve(floor.tv_lower_N, upper_N, floor.prompt_id_N, confidence=confidence)
    return [Exceedance(**vars(point)) for point in curve]


def _sample(size: int) -> np.ndarray:
    """Indices of at most `_POINTS` of `size` things, chosen at random but always the same."""
    if size <= _POINTS:
        return np.arange(size)
    return np.sort(np.random.default_rng(0).choice(size, _POINTS, replace=False))
