"""How heavy a tail is: the generalised Pareto shape of importance weights and, on request, of maxima.

Shape suffixes: N weights, M tail values, C clusters (prompts), S and K grid axes of scale and shape.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ..errors import EmptyComparisonError, NotComparableError
from .results import TailExtrapolation

MIN_WEIGHTS = 25
MIN_EXCEEDANCES = 20
SHAPE_RANGE = (-1.0, 1.5)  # below -1 the likelihood has no maximum


def pareto_k(log_weight_N: np.ndarray) -> float | None:
    """Shape k̂ of the right tail of importance weights, the PSIS diagnostic.

    A generalised Pareto fit (`gpd_shape`) to the min(N/5, 3√N) largest weights, as in Vehtari, Simpson,
    Gelman, Yao & Gabry 2024, "Pareto smoothed importance sampling". Above 0.7, averages over the weights,
    their ESS and their χ² cannot be trusted. The weights may be unnormalised; -inf is a weight of zero.

    None where no tail can be fitted: fewer than 25 weights, or fewer than five above the cut, as when all
    weights are equal. +inf when fewer than five weights are above zero beside the largest one in float64.
    Raises NotComparableError on NaN or +inf.
    """
    log_weight_N = np.asarray(log_weight_N, dtype=np.float64)
    if np.isnan(log_weight_N).any() or np.isposinf(log_weight_N).any():
        raise NotComparableError("A log weight is NaN or +inf, so the weights have no tail to fit.")
    n = log_weight_N.size
    if n < MIN_WEIGHTS or np.isneginf(log_weight_N).all():
        return None
    tail_length = math.ceil(min(n / 5, 3 * math.sqrt(n)))
    tail_M = np.sort(log_weight_N)[-tail_length - 1 :]
    weight_M = np.exp(tail_M - tail_M[-1])
    if weight_M[-5] < np.finfo(np.float64).tiny:
        return math.inf
    excess_M = -weight_M * np.expm1(tail_M[0] - tail_M)  # weight - cut, without cancellation
    excess_M = excess_M[excess_M > 0]
    return gpd_shape(excess_M) if excess_M.size >= 5 else None


def gpd_shape(excess_M: np.ndarray) -> float:
    """Shape of a generalised Pareto distribution from its ascending, positive excesses.

    The quasi-Bayesian estimator of Zhang & Stephens 2009, "A new and efficient estimation method for the
    generalized Pareto distribution", with the PSIS prior that counts as ten excesses of shape ½.
    """
    m = excess_M.size
    grid = 30 + int(math.sqrt(m))
    quartile = excess_M[int(m / 4 + 0.5) - 1]
    theta_S = 1 / excess_M[-1] + (1 - np.sqrt(grid / (np.arange(1, grid + 1) - 0.5))) / (3 * quartile)
    shape_S = np.log1p(-theta_S[:, None] * excess_M).mean(axis=1)
    profile_S = m * (np.log(-theta_S / shape_S) - shape_S - 1)
    weight_S = np.exp(profile_S - profile_S.max())
    theta = float(theta_S @ weight_S / weight_S.sum())
    shape = float(np.log1p(-theta * excess_M).mean())
    return (m * shape + 10 * 0.5) / (m + 10)


def tail_extrapolation(
    max_C: np.ndarray,
    *,
    quantile: float = 0.999,
    threshold: float | None = None,
    confidence: float = 0.95,
) -> TailExtrapolation:
    """Extrapolate the prompts' maxima beyond what was seen (peaks over threshold, Coles 2001, chapter 4).

    `max_C` is the largest TV of every prompt; `threshold` defaults to its 0.8 quantile. Unlike a tolerance
    bound this needs a model, so it is made on request only.

    `low` is an order statistic below the quantile whatever the distribution: a heavy tail that ends at 1 looks
    like one that goes on, so the model's own lower end cannot be trusted. `high` is the largest quantile that the
    likelihood does not reject (profile likelihood; a bootstrap is inconsistent this far out), at most 1. Bounded
    maxima have shapes down to −1, the uniform's. There, as for every end of a uniform's range, twice the
    log-likelihood ratio is χ² with two degrees of freedom, not one (Hogg 1956, "On the distribution of the
    likelihood ratio"); two are taken everywhere, which is wide for heavier tails. benchmarks/calibration_tails.py
    measures how often both ends hold.

    Without figures, with the `reason`, when fewer than 20 values lie above the threshold. Raises ValueError when
    `quantile` is not beyond the threshold.
    """
    max_C = np.asarray(max_C, dtype=np.float64)
    if max_C.size == 0:
        raise EmptyComparisonError("There are no prompts to extrapolate from.")
    if np.isnan(max_C).any() or max_C.min() < -1e-9 or max_C.max() > 1 + 1e-6:
        raise NotComparableError("The maximum of a total variation must lie in [0, 1].")
    if threshold is None:
        threshold = float(np.quantile(max_C, 0.8, method="inverted_cdf"))
    excess_M = max_C[max_C > threshold] - threshold
    none = TailExtrapolation(
        quantile=quantile, confidence=confidence, threshold=threshold, exceedances=excess_M.size
    )
    if excess_M.size < MIN_EXCEEDANCES:
        return replace(none, reason=f"fewer than {MIN_EXCEEDANCES} prompts' maxima lie above the threshold")
    beyond = excess_M.size / max_C.size
    if not 1 - beyond < quantile < 1:
        raise ValueError(f"quantile must lie between {1 - beyond:.4g} (the threshold) and 1, got {quantile}")

    drop = -math.log1p(-confidence)  # half the quantile of χ² with two degrees of freedom
    mean_excess = float(excess_M.mean())
    shape_range, log_scale_range = SHAPE_RANGE, (math.log(mean_excess) - 2.5, math.log(mean_excess) + 2.5)
    for _ in range(3):  # each pass looks closer at the region that the last one did not reject
        shape_K, log_scale_S = np.linspace(*shape_range, 81), np.linspace(*log_scale_range, 81)
        loglik_KS = _gpd_loglik(excess_M, shape_K, np.exp(log_scale_S))
        kept_KS = loglik_KS >= loglik_KS.max() - drop
        shape_range = _around(shape_K, kept_KS.any(axis=1), SHAPE_RANGE)
        log_scale_range = _around(log_scale_S, kept_KS.any(axis=0), (-math.inf, math.inf))
    best_k, best_s = np.unravel_index(int(loglik_KS.argmax()), loglik_KS.shape)
    value_KS = threshold + _gpd_quantile((1 - quantile) / beyond, shape_K, np.exp(log_scale_S))
    value_KS = np.minimum(value_KS, 1.0)  # no TV lies beyond 1, whatever the model says
    value = float(value_KS[best_k, best_s])
    return replace(
        none,
        shape=float(shape_K[best_k]),
        scale=float(np.exp(log_scale_S[best_s])),
        value=value,
        low=min(value, _quantile_lower_limit(max_C, quantile, confidence)),
        high=float(value_KS[kept_KS].max()),
    )


def _quantile_lower_limit(max_C: np.ndarray, quantile: float, confidence: float) -> float:
    """The highest order statistic that lies above the quantile with probability (1 - confidence)/2 at most."""
    from scipy.special import bdtr

    above_C = np.arange(max_C.size)  # M_(n-j) is beyond the quantile when more than j values are
    chance_C = 1 - bdtr(above_C, max_C.size, 1 - quantile)
    below = int(np.argmax(chance_C <= (1 - confidence) / 2))
    return float(np.partition(max_C, max_C.size - 1 - below)[max_C.size - 1 - below])


def _gpd_loglik(excess_M: np.ndarray, shape_K: np.ndarray, scale_S: np.ndarray) -> np.ndarray:
    loglik_KS = np.empty((shape_K.size, scale_S.size))
    for row, shape in enumerate(shape_K):  # one shape at a time bounds the memory to S × M
        scaled_SM = excess_M / scale_S[:, None]
        if abs(shape) < 1e-6:
            loglik_KS[row] = -scaled_SM.sum(axis=1)
            continue
        inside_S = 1 + shape * scaled_SM.max(axis=1) > 0  # a negative shape ends the support
        loglik_KS[row] = -math.inf
        loglik_KS[row, inside_S] = -(1 + 1 / shape) * np.log1p(shape * scaled_SM[inside_S]).sum(axis=1)
    return loglik_KS - excess_M.size * np.log(scale_S)


def _gpd_quantile(survival: float, shape_K: np.ndarray, scale_S: np.ndarray) -> np.ndarray:
    """The excess that a GPD exceeds with probability `survival`, on the grid of its parameters."""
    log_odds = -math.log(survival)
    with np.errstate(invalid="ignore", divide="ignore"):
        factor_K = np.where(np.abs(shape_K) < 1e-6, log_odds, np.expm1(shape_K * log_odds) / shape_K)
    return factor_K[:, None] * scale_S


def _around(grid: np.ndarray, kept: np.ndarray, limits: tuple[float, float]) -> tuple[float, float]:
    """The range of the kept grid points, one step wider on each side."""
    step = grid[1] - grid[0]
    return max(limits[0], grid[kept][0] - step), min(limits[1], grid[kept][-1] + step)
