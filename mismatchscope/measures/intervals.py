"""How sure a mean or a fraction is, when the tokens of one prompt are not independent.

The unit of independence is the prompt (the cluster), never the token: every interval here is computed
from one number per prompt. All of them are analytic, so the same input gives the same digits.

Shape suffixes: N tokens, C clusters (prompts), G grid points.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from ..errors import EmptyComparisonError, NotComparableError
from .results import Interval

Side = Literal["both", "lower", "upper"]

# The ranges that a mean cannot leave.
ANY = (-math.inf, math.inf)
NONNEGATIVE = (0.0, math.inf)
UNIT = (0.0, 1.0)

ALIKE = ("all-zero", "constant")
"""Methods of intervals without width, of values that are all the same."""


def cluster_index(cluster_N: np.ndarray) -> np.ndarray:
    """Renumber arbitrary cluster labels as 0 … C-1, in the order of the labels."""
    cluster_N = np.asarray(cluster_N)
    if cluster_N.ndim != 1:
        raise ValueError(f"cluster labels must be one-dimensional, got shape {cluster_N.shape}")
    if cluster_N.size == 0:
        raise EmptyComparisonError("There are no tokens to measure.")
    if np.issubdtype(cluster_N.dtype, np.integer):
        first, last = int(cluster_N.min()), int(cluster_N.max())
        if last - first < 4 * cluster_N.size:  # a table is twenty times faster than sorting the labels
            offset_N = cluster_N.astype(np.int64) - first
            used = np.bincount(offset_N) > 0
            return (np.cumsum(used) - 1)[offset_N]
    return np.unique(cluster_N, return_inverse=True)[1]


def clustered_mean(
    value_N: np.ndarray,
    cluster_N: np.ndarray,
    *,
    confidence: float = 0.95,
    bounds: tuple[float, float] = ANY,
) -> Interval:
    """The mean over all tokens, with an interval that treats the prompt as the unit.

    The pooled token mean is the ratio Σ_c sum_c / Σ_c count_c: long responses weigh more, and their number
    of tokens is random too. See `ratio_interval` for the interval. `bounds` is the range the mean cannot
    leave, (0, 1) for a total variation; the interval is cut to it.

    A +inf among the values (a KL under support leak) makes the mean and the whole interval +inf: a state
    that was visited has positive probability. When all values are identical the interval has no width, and
    `method` says "all-zero" or "constant", because no sample of that kind can show how wide it should be.

    Raises EmptyComparisonError on no tokens, NotComparableError on NaN.
    """
    _check_confidence(confidence)
    value_N = _checked(value_N)
    index_N = cluster_index(cluster_N)
    if index_N.shape != value_N.shape:
        raise ValueError(f"values {value_N.shape} and cluster labels {index_N.shape} differ in shape")
    return sums_interval(
        np.bincount(index_N, weights=value_N),
        np.bincount(index_N),
        (float(value_N.min()), float(value_N.max())),
        confidence=confidence,
        bounds=bounds,
    )


def sums_interval(
    sum_C: np.ndarray,
    count_C: np.ndarray,
    extremes: tuple[float, float],
    *,
    confidence: float = 0.95,
    bounds: tuple[float, float] = ANY,
) -> Interval:
    """`clustered_mean` from the sum and the count of each cluster, and the smallest and largest of all values."""
    smallest, largest = extremes
    n, clusters = int(count_C.sum()), count_C.size
    if math.isinf(smallest) or math.isinf(largest):
        if smallest == -largest:
            raise NotComparableError("The values hold both +inf and -inf, so they have no mean.")
        infinite = largest if math.isinf(largest) else smallest
        return Interval(infinite, infinite, infinite, confidence, n, clusters, "infinite")
    if smallest == largest and clusters > 1:
        method = ALIKE[0] if largest == 0 else ALIKE[1]
        return Interval(largest, largest, largest, confidence, n, clusters, method)
    return ratio_interval(sum_C, count_C, confidence=confidence, bounds=bounds)


def ratio_interval(
    sum_C: np.ndarray,
    count_C: np.ndarray,
    *,
    confidence: float = 0.95,
    bounds: tuple[float, float] = ANY,
) -> Interval:
    """Interval of Σ_c sum_c / Σ_c count_c over independent clusters.

    The error is the delete-one-cluster jackknife's. Its multiple on the short side is the t quantile, with
    the number of clusters of equal size that would weigh as much; on the side of the long tail that quantile
    is pushed out by Hall's transformation (Hall 1992, "On the removal of skewness by transformation").
    Mismatch is right-skewed, and a plain t interval ends too low: a sample without the rare large prompt has
    both a small mean and a small error. benchmarks/calibration.py measures the coverage beside the t interval,
    the bootstrap-t and BCa.

    `low` and `high` are None with fewer than two clusters, or when the clusters do not differ at all.
    """
    _check_confidence(confidence)
    sum_C = np.asarray(sum_C, dtype=np.float64)
    count_C = np.asarray(count_C, dtype=np.float64)
    total, clusters = float(count_C.sum()), count_C.size
    mean = float(sum_C.sum()) / total
    if clusters < 2:
        return Interval(mean, None, None, confidence, int(total), clusters, "too-few-clusters")

    residual_C = sum_C - mean * count_C
    if np.abs(residual_C).max() <= 1e-12 * np.abs(sum_C).max():
        return Interval(mean, None, None, confidence, int(total), clusters, "no-between-cluster-variance")
    effective = total**2 / float(count_C @ count_C)
    low, high = jackknife_ends(mean, residual_C / (total - count_C), effective, confidence)
    low, high = min(max(low, bounds[0]), mean), max(min(high, bounds[1]), mean)
    return Interval(mean, low, high, confidence, int(total), clusters, "cluster-jackknife-hall")


def jackknife_ends(
    value: float, shift_C: np.ndarray, effective: float, confidence: float = 0.95
) -> tuple[float, float]:
    """The ends of a delete-one-cluster jackknife, from `value` less the same figure without each cluster.

    t quantiles of `effective` clusters of equal size; on the side of the long tail Hall's (see `ratio_interval`).
    """
    from scipy.special import stdtrit

    clusters = shift_C.size
    shift_C = shift_C - shift_C.mean()
    with np.errstate(over="ignore"):  # beyond 1e154 nothing bounds the mean: the error is infinite
        error = math.sqrt((clusters - 1) / clusters * float(shift_C @ shift_C))
    t = float(stdtrit(max(1.0, effective - 1), 0.5 + confidence / 2))
    skew = _skewness(shift_C)
    long_t = _hall_quantile(t, abs(skew), clusters)
    return value - error * (long_t if skew < 0 else t), value + error * (long_t if skew > 0 else t)


def empirical_bernstein(mean_C: np.ndarray, *, confidence: float = 0.95, side: Side = "both") -> Interval:
    """A bound that holds for any distribution on [0, 1] and any number of clusters.

    `mean_C` is one value per prompt, its mean TV for example; the bound is about their expectation, in
    which every prompt weighs the same. With probability 1-δ the expectation is at most
    mean + sqrt(2 V ln(2/δ) / C) + 7 ln(2/δ) / (3 (C-1)), V the sample variance (Maurer & Pontil 2009,
    theorem 4). `side` "both" spends δ/2 on each end.
    """
    _check_confidence(confidence)
    mean_C = _checked(mean_C)
    clusters = mean_C.size
    if mean_C.min() < -1e-9 or mean_C.max() > 1 + 1e-9:
        raise ValueError("empirical Bernstein needs values in [0, 1]")
    value = float(mean_C.mean())
    if clusters < 2:
        return Interval(value, None, None, confidence, clusters, clusters, "too-few-clusters")
    delta = (1 - confidence) / (2 if side == "both" else 1)
    log_term = math.log(2 / delta)
    margin = math.sqrt(2 * float(mean_C.var(ddof=1)) * log_term / clusters)
    margin += 7 * log_term / (3 * (clusters - 1))
    low = max(0.0, value - margin) if side != "upper" else 0.0
    high = min(1.0, value + margin) if side != "lower" else 1.0
    return Interval(value, low, high, confidence, clusters, clusters, f"empirical-bernstein-{side}")


def proportion_interval(k: int, n: int, *, confidence: float = 0.95, side: Side = "both") -> Interval:
    """Clopper–Pearson interval of a fraction: k of n independent units (prompts, not tokens).

    Never below its nominal level. `side` "upper" puts the whole error on the upper limit, so that k = 0
    gives 1 - (1-confidence)^(1/n), about 3/n at 95 %.
    """
    from scipy.special import betaincinv

    _check_confidence(confidence)
    if n < 1:
        raise EmptyComparisonError("A fraction of no units is not defined.")
    if not 0 <= k <= n:
        raise ValueError(f"k must be between 0 and n, got k={k}, n={n}")
    delta = (1 - confidence) / (2 if side == "both" else 1)
    low = 0.0 if k == 0 or side == "upper" else float(betaincinv(k, n - k + 1, delta))
    high = 1.0 if k == n or side == "lower" else float(betaincinv(k + 1, n - k, 1 - delta))
    return Interval(k / n, low, high, confidence, n, n, f"clopper-pearson-{side}")


def required_clusters(q: float, confidence: float = 0.95) -> int:
    """The fewest prompts whose maximum bounds a fraction q of all prompts: 1 - q^n ≥ confidence.

    59, 299 and 2995 for q = 0.95, 0.99 and 0.999 at 95 %.
    """
    _check_confidence(confidence)
    if not 0 < q < 1:
        raise ValueError(f"q must lie strictly between 0 and 1, got {q}")
    return max(1, math.ceil(math.log1p(-confidence) / math.log(q) - 1e-9))


def unseen_share(clusters: int, confidence: float = 0.95) -> float:
    """1 - (1 - confidence)^(1/n), about 3/n at 95 %: what as many as that of all prompts do, n may fail to show."""
    _check_confidence(confidence)
    if clusters < 1:
        raise EmptyComparisonError("No prompts were seen.")
    return -math.expm1(math.log1p(-confidence) / clusters)


def _checked(value_N: np.ndarray) -> np.ndarray:
    value_N = np.asarray(value_N, dtype=np.float64)
    if value_N.ndim != 1:
        raise ValueError(f"values must be one-dimensional, got shape {value_N.shape}")
    if value_N.size == 0:
        raise EmptyComparisonError("There are no values to measure.")
    unknown = int(np.isnan(value_N).sum())
    if unknown:
        raise NotComparableError(f"{unknown} of {value_N.size} values are NaN, so they have no mean.")
    return value_N


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie strictly between 0 and 1, got {confidence}")


def _skewness(centred_C: np.ndarray) -> float:
    """Sample skewness with the small-sample factor of a normal parent (G1 of Joanes & Gill 1998)."""
    clusters = centred_C.size
    if clusters < 3:
        return 0.0
    scaled_C = centred_C / np.abs(centred_C).max()  # cubes of small divergences would underflow
    moment2, moment3 = float(np.mean(scaled_C**2)), float(np.mean(scaled_C**3))
    return moment3 / moment2**1.5 * math.sqrt(clusters * (clusters - 1)) / (clusters - 2)


def _hall_quantile(t: float, skewness: float, clusters: int) -> float:
    """How many standard errors reach as far into the long tail as t does under symmetry.

    Hall's T + g T²/3 + g² T³/27 + g/6 with g = skewness/√C, solved for T at -t. Two cautions, both on the
    wide side. The skewness of a heavy-tailed sample falls short of the truth (it cannot exceed √C), so it
    counts 1 + 4/√C times: a factor that goes to 1, chosen by simulation. And the solution stops growing near
    g = 0.5, so the largest one up to the sample's g is taken.
    """
    g = skewness / math.sqrt(clusters) * (1 + 4 / math.sqrt(clusters))
    if g < 1e-9:
        return t
    g_G = np.linspace(0.02, 1, 50) * g
    return max(t, float(np.max(3 / g_G * (1 - np.cbrt(1 - g_G * (t + g_G / 6))))))
