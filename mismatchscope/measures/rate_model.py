"""Sums that are compared at like conditions: how large each would be if its rate were a product of effects.

A sum of TV over tokens is larger where there are more tokens, where they are more uncertain, later in a response,
of another step or worker. The model says E sum = exposure · Π effect, one effect a level of every factor. Its
Poisson pseudo-likelihood needs no law of the sums (Gourieroux, Monfort and Trognon 1984); its equations, that the
sums of every level are those expected, are solved one factor after another (Deming and Stephan 1940). Intervals
allow for what the sums of a cluster have in common.

Shape suffixes: E rows, C clusters; a factor is the number of each row's level [E].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .intervals import jackknife_ends
from .results import Interval

Array = np.ndarray

_ROUNDS = 60
_EXACT = 1e-5
_FARTHEST = 700.0
LEAST_OVERLAP = 0.1
"""Where less of the variation of a label is left at like conditions, the factors explain it and it has no effect of
its own that could be told."""


@dataclass(frozen=True)
class RateRatio:
    """How many times as large the sums of some rows are as those of the others at like conditions."""

    ratio: Interval
    overlap: float
    """Share of the variation between the two kinds of rows that is left within the levels of the factors."""


def expected_sums(factors: Sequence[Array], sum_E: Array, exposure_E: Array) -> Array:
    """What each row's sum is expected to be [E]; without a factor all rows have one rate."""
    expected_E = exposure_E.astype(np.float64)
    for _ in range(_ROUNDS):
        largest = 0.0
        for level_E in factors or [np.zeros(len(sum_E), dtype=np.int64)]:
            factor_L = _quotient(np.bincount(level_E, sum_E), np.bincount(level_E, expected_E))
            expected_E *= factor_L[level_E]
            largest = max(largest, float(np.abs(factor_L[factor_L > 0] - 1).max(initial=0.0)))
        if largest < _EXACT:
            break
    return expected_E


def rate_ratio(
    is_E: Array,
    factors: Sequence[Array],
    cluster_E: Array,
    sum_E: Array,
    exposure_E: Array,
    *,
    confidence: float = 0.95,
) -> RateRatio:
    """The effect of the rows that `is_E` names; `cluster_E` are numbers of independent clusters from 0 on.

    Influences of clusters are linearised (Liang and Zeger 1986) and widened by the number of levels that were
    fitted. No ends where clusters are not more than levels, and no value where the overlap is below `LEAST_OVERLAP`
    or one kind of rows has sums of 0 alone.
    """
    overlap = 1 - explained_share(is_E, factors, exposure_E)
    clusters, n = int(cluster_E.max()) + 1, len(sum_E)
    which_E = is_E.astype(np.int64)
    unknown = Interval(None, None, None, confidence, n, clusters, "no-overlap")
    if overlap < LEAST_OVERLAP or not np.bincount(which_E, sum_E, minlength=2).all():
        return RateRatio(unknown, overlap)
    expected_E = expected_sums([*factors, which_E], sum_E, exposure_E)
    apart_E = _within(is_E.astype(np.float64), factors, expected_E)
    information = float(expected_E @ apart_E**2)
    if not information > 0:
        return RateRatio(unknown, overlap)
    logarithm = _effect(which_E, factors, expected_E, exposure_E)
    spare = clusters - 1 - sum(int(level_E.max()) for level_E in factors)
    if spare < 2:
        ratio = Interval(math.exp(logarithm), None, None, confidence, n, clusters, "too-few-clusters")
        return RateRatio(ratio, overlap)
    influence_C = np.bincount(cluster_E, apart_E * (sum_E - expected_E)) / information
    weight_C = np.bincount(cluster_E, apart_E**2 * expected_E)
    effective = float(weight_C.sum()) ** 2 / float(weight_C @ weight_C)
    low, high = jackknife_ends(logarithm, influence_C * math.sqrt(clusters / spare), effective, confidence)
    ends = tuple(math.exp(each) if abs(each) < _FARTHEST else None for each in (low, high))
    return RateRatio(
        Interval(math.exp(logarithm), ends[0], ends[1], confidence, n, clusters, "rate-model"), overlap
    )


def explained_share(is_E: Array, factors: Sequence[Array], weight_E: Array) -> float:
    """Share of the variation between two kinds of rows that the factors explain; of one factor it is η²."""
    value_E = is_E.astype(np.float64)
    left_E = _within(value_E, factors, weight_E)
    centred_E = value_E - float(value_E @ weight_E) / float(weight_E.sum())
    return 1 - float(weight_E @ left_E**2) / float(weight_E @ centred_E**2)


def _effect(which_E: Array, factors: Sequence[Array], expected_E: Array, exposure_E: Array) -> float:
    """The logarithm of the effect that a fit gives the rows numbered 1, over that of those numbered 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        rate_E = np.log(expected_E / exposure_E)
    known_E = np.isfinite(rate_E)
    factors = [np.unique(level_E[known_E], return_inverse=True)[1] for level_E in factors]
    apart_E = _within(which_E[known_E].astype(np.float64), factors, expected_E[known_E])
    weight_E = apart_E * expected_E[known_E]
    return float(weight_E @ rate_E[known_E]) / float(weight_E @ which_E[known_E])


def _within(value_E: Array, factors: Sequence[Array], weight_E: Array) -> Array:
    """What weighted least squares on the factors leave of a value, by taking out one factor after another."""
    left_E = value_E - float(value_E @ weight_E) / float(weight_E.sum())
    weights = [np.bincount(level_E, weight_E) for level_E in factors]
    for _ in range(_ROUNDS):
        largest = 0.0
        for level_E, weight_L in zip(factors, weights, strict=True):
            mean_L = _quotient(np.bincount(level_E, weight_E * left_E), weight_L)
            left_E = left_E - mean_L[level_E]
            largest = max(largest, float(np.abs(mean_L).max(initial=0.0)))
        if largest < _EXACT:
            break
    return left_E


def _quotient(sum_L: Array, of_L: Array) -> Array:
    """0 where it is of nothing."""
    return np.divide(sum_L, of_L, out=np.zeros(len(of_L)), where=of_L > 0)
