"""Whole responses as importance weights: their effective sample size, their χ², and whether either can be trusted.

Legend: S = sequences, C = clusters (prompts). Log ratios are log pi - log mu, in nats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from ..errors import EmptyComparisonError
from .intervals import cluster_index, jackknife_ends
from .tail import pareto_k

Array = np.ndarray

TOO_FEW_RESPONSES = "fewer than 25 responses, or too few distinct weights, to fit the tail of the weights"
TOO_FEW_PROMPTS = "fewer than two prompts"
ALL_ZERO = "every weight is zero"


@dataclass(frozen=True)
class WeightFigures:
    """What the weights say. `reason` is why nothing may be concluded from ESS and χ²; None where they are sound.

    `low` and `high` are the interval of `ess_fraction`; None where there is a reason.
    """

    ess_fraction: float | None
    """Effective sample size over S: (sum w)^2 / (S sum w^2), in [1/S, 1]; None when every weight is zero."""
    chi2: float
    """Mean of (rho - 1)^2, which is unbiased for chi^2(pi || mu) while pi stays in mu's support."""
    pareto_k: float | None
    pareto_k_limit: float
    low: float | None = None
    high: float | None = None
    reason: str | None = None


def weight_figures(log_ratio_S: ArrayLike, cluster_S: Array, *, confidence: float = 0.95) -> WeightFigures:
    """ESS, chi^2 and Pareto k of the weights exp(log_ratio), before any clamp, summed in log space.

    Nothing overflows on the way; chi2 is infinite only where its value is beyond 1e308.

    Raises:
        EmptyComparisonError: there are no weights.
        ValueError: a log ratio is NaN or +inf.
    """
    log_ratio_S = np.asarray(log_ratio_S, dtype=np.float64)
    if log_ratio_S.size == 0:
        raise EmptyComparisonError("There is no sequence to weight.")
    if not (log_ratio_S < np.inf).all():
        raise ValueError(f"log ratio of sequence {int(np.argmin(log_ratio_S < np.inf))} is NaN or +inf")
    with np.errstate(divide="ignore", over="ignore"):  # log 0 where a weight is exactly one
        log_distance_S = np.maximum(log_ratio_S, 0) + np.log(-np.expm1(-np.abs(log_ratio_S)))  # log |rho - 1|
        chi2 = float(np.exp(_log_mean_exp(2 * log_distance_S)))
    limit, shape = pareto_k_limit(log_ratio_S.size), pareto_k(log_ratio_S)
    if np.isneginf(log_ratio_S).all():
        return WeightFigures(None, chi2, shape, limit, reason=ALL_ZERO)
    ess_fraction = float(np.exp(2 * _log_mean_exp(log_ratio_S) - _log_mean_exp(2 * log_ratio_S)))
    found = WeightFigures(ess_fraction, chi2, shape, limit)
    if log_ratio_S.size > 1 and (log_ratio_S == log_ratio_S[0]).all():
        return replace(found, low=1.0, high=1.0)  # no sample of that kind shows how wide it should be
    if shape is None:
        return replace(found, reason=TOO_FEW_RESPONSES)
    if shape > limit:
        return replace(found, reason=f"Pareto k {shape:.2f} of the weights is above {limit:.2f}")
    ends = _ess_ends(log_ratio_S, cluster_S, confidence)
    if ends is None:
        return replace(found, reason=TOO_FEW_PROMPTS)
    return replace(found, low=min(ends[0], ess_fraction), high=max(ends[1], ess_fraction))


def pareto_k_limit(sequences: int) -> float:
    """The largest Pareto k at which averages over that many weights can be trusted: min(1 - 1/log10 S, 0.7).

    Vehtari, Simpson, Gelman, Yao & Gabry 2024, "Pareto smoothed importance sampling". 0 for ten sequences and
    fewer.
    """
    return min(1 - 1 / math.log10(sequences), 0.7) if sequences > 10 else 0.0


def _ess_ends(log_ratio_S: Array, cluster_S: Array, confidence: float) -> tuple[float, float] | None:
    """Interval of (E w)^2 / E w^2, the prompt as the unit: a jackknife of log((1 - ESS/S) / (ESS/S)) = log CV^2.

    CV, the weights' standard deviation over their mean, is computed from distances to the mean, so that an ESS near
    one keeps its digits. None with fewer than two prompts, or where one of them holds all that differs.
    """
    index_S = cluster_index(cluster_S)
    count_C = np.bincount(index_S)
    if count_C.size < 2:
        return None
    weight_S = np.exp(log_ratio_S - log_ratio_S.max())
    mean = float(weight_S.mean())
    distance_S = weight_S - mean
    sum_C, square_C = np.bincount(index_S, distance_S), np.bincount(index_S, distance_S**2)
    others_C = count_C.sum() - count_C
    shift_C = (sum_C.sum() - sum_C) / others_C
    variance_C = (square_C.sum() - square_C) / others_C - shift_C**2
    mean_C = mean + shift_C
    variance = float(square_C.sum()) / count_C.sum()
    if not (variance_C > 0).all() or not (mean_C > 0).all():
        return None
    log_cv2 = math.log(variance / mean**2)
    shift_C = log_cv2 - np.log(variance_C / mean_C**2)
    effective = float(count_C.sum()) ** 2 / float(count_C @ count_C)
    low, high = jackknife_ends(log_cv2, shift_C, effective, confidence)
    return _logistic(-high), _logistic(-low)


def _logistic(log_odds: float) -> float:
    return 1 / (1 + math.exp(-log_odds)) if log_odds > -700 else 0.0


def _log_mean_exp(log_values_S: Array) -> float:
    largest = log_values_S.max()
    if np.isneginf(largest):
        return float(largest)
    return float(largest + np.log(np.mean(np.exp(log_values_S - largest))))
