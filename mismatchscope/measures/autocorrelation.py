"""How sure a slope over steps, or a change between two stretches of them, is, where neighbouring steps are alike.

The noise of a contrast is read off slow waves that the contrast cannot see: cosines of low frequency, orthogonal to
a polynomial trend (equal-weighted cosines: Lazarus, Lewis, Stock and Watson 2018, "HAR inference: recommendations
for practice"; for trends Müller and Watson 2008, "Testing models of low-frequency variability"). Their number is
the degrees of freedom of a t interval, and all that is assumed about the noise is that it is alike at low
frequencies.

In few steps it is not: the slowest waves of a persistent process are the largest, and a contrast is slower still.
So the variance is corrected by what an AR(1) process would give the contrast and the waves, at a lag-1 correlation
1.5 standard errors above its estimate. benchmarks/calibration_trend.py has the coverage.

Shape suffixes: T steps, Q waves, K polynomials.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from .results import Interval

Array = np.ndarray

MIN_STEPS = 8
"""Fewer have no interval."""
_FEWEST_WAVES = 3
_MOST_PERSISTENT = 0.95


def slope(step_T: Array, value_T: Array, *, breaks: tuple[int, ...] = (), confidence: float = 0.95) -> Interval:
    """Least-squares change of the value with one more step. `step_T` rises; steps without a value may be missing.
    `breaks` are the places of known changes of level: they are part of the slope, and no noise.

    `n` counts steps, `clusters` the degrees of freedom. No ends with fewer than `MIN_STEPS` steps; no value with
    fewer than two.
    """
    if len(value_T) < 2:
        return Interval(None, None, None, confidence, len(value_T), 0, "too-few-steps")
    centred_T = step_T - step_T.mean()
    return contrast(value_T, centred_T / float(centred_T @ centred_T), breaks=breaks, confidence=confidence)


def relative_change(
    value_T: Array, window: int, *, breaks: tuple[int, ...] = (), confidence: float = 0.95
) -> Interval:
    """Mean of the last `window` values over that of the first ones, which do not overlap.

    `breaks` as for `slope`. The run is brought to one level, where noise in proportion to the level is alike, and
    the contrast of its last and first values there gives the error of both means. The interval is Fieller's (1954,
    "Some problems in interval estimation") of two means with that error: on an extreme value, which moves a mean
    and its error alike, it widens until it has no end. No end is given then.

    No ratio where a value is negative, the first ones are all 0, or it is beyond 1e308.
    """
    steps = len(value_T)
    value_T = value_T / (np.abs(value_T).max() or 1.0)  # squares of the largest floats overflow
    first, last = float(value_T[:window].mean()), float(value_T[-window:].mean())
    if value_T.min() < 0 or first == 0:
        return Interval(None, None, None, confidence, steps, 0, "not-positive")
    ratio = last / first
    if not 0 < ratio < math.inf:
        return Interval(ratio if last == 0 else None, None, None, confidence, steps, 0, "beyond-any-ratio")
    weight_T = np.zeros(steps)
    weight_T[:window], weight_T[-window:] = -1 / window, 1 / window
    place_T = np.arange(steps)
    if breaks:  # the level changed there, and else by as much with every step
        progress_T = np.searchsorted(breaks, place_T, side="right") / len(breaks)
    else:
        progress_T = np.clip((place_T - (window - 1)) / (steps - 2 * window + 1), 0, 1)
    with np.errstate(over="ignore"):
        levelled_T = value_T / first * ratio**-progress_T
    if not np.isfinite(levelled_T).all():
        return Interval(ratio, None, None, confidence, steps, 0, "noise-hides-the-ratio")
    difference = contrast(levelled_T, weight_T, breaks=breaks, confidence=confidence)
    if difference.low is None or difference.high is None:
        return Interval(ratio, None, None, confidence, steps, 0, difference.method)
    error = (difference.high - difference.low) / 2
    if error**2 >= 2:
        return Interval(ratio, None, None, confidence, steps, difference.clusters, "noise-hides-the-ratio")
    # (1 − θ)² ≤ (1 + θ²) error² / 2 for θ the true ratio over the estimated one.
    factor = math.exp(math.acosh(1 / (1 - error**2 / 2)))
    return Interval(
        ratio, ratio / factor, ratio * factor, confidence, steps, difference.clusters, difference.method
    )


def contrast(
    value_T: Array, weight_T: Array, *, breaks: tuple[int, ...] = (), confidence: float = 0.95
) -> Interval:
    """Interval of Σ weight · value under autocorrelated noise; the weights sum to 0. `breaks`: as for
    `slope`."""
    from scipy.special import stdtrit

    steps, scale = len(value_T), float(np.abs(value_T).max()) or 1.0
    value_T = value_T / scale  # squares of the largest floats overflow
    constant = bool(np.ptp(value_T) <= 1e-12)
    value = 0.0 if constant else float(weight_T @ value_T) * scale  # and not what rounding makes of it
    if steps < MIN_STEPS:
        return Interval(value, None, None, confidence, steps, 0, "too-few-steps")
    if constant:
        return Interval(value, value, value, confidence, steps, 0, "constant")
    trend_TK, wave_TQ = _bases(steps, breaks)
    rho = persistence(value_T - trend_TK @ (trend_TK.T @ value_T), fitted=trend_TK.shape[1])
    waves = wave_TQ.shape[1]
    energy = float(np.mean((value_T @ wave_TQ) ** 2))
    of_waves = float(np.mean(np.sum(wave_TQ * ar1_product(wave_TQ, rho), axis=0)))
    of_contrast = float(weight_T @ ar1_product(weight_T, rho))
    half = scale * float(stdtrit(waves, 0.5 + confidence / 2)) * math.sqrt(energy * of_contrast / of_waves)
    return Interval(value, value - half, value + half, confidence, steps, waves, "low-frequency-cosines")


def persistence(residual_T: Array, fitted: int) -> float:
    """Lag-1 correlation of a process, 1.5 standard errors above its estimate, in [0, 0.95].

    `residual_T` is what `fitted` regressors have left of it, which lowers the raw estimate by about
    (fitted + 3ρ) / T (Kendall 1954; Marriott and Pope 1954).
    """
    steps = len(residual_T)
    total = float(residual_T @ residual_T)
    if total == 0:
        return 0.0
    raw = float(residual_T[1:] @ residual_T[:-1]) / total
    unbiased = min(max((raw * steps + fitted) / (steps - fitted - 2), 0.0), _MOST_PERSISTENT)
    return min(unbiased + 1.5 * math.sqrt((1 - unbiased**2) / steps), _MOST_PERSISTENT)


def ar1_product(value_T: Array, rho: float) -> Array:
    """The covariance ρ^|s − t| of an AR(1) process of variance 1, times a vector or the columns of a matrix."""
    return ar1_sums(value_T, rho) + ar1_sums(value_T[::-1], rho)[::-1] - value_T


def ar1_sums(value_T: Array, rho: float) -> Array:
    """y_t = x_t + ρ y_(t−1) along the first axis: sums over 1, 2, 4, … steps back. scipy.signal has it, and takes
    two seconds to import."""
    sum_T, reach = np.array(value_T, dtype=np.float64), 1
    while reach < len(sum_T) and rho**reach > 1e-18:
        sum_T[reach:] += rho**reach * sum_T[:-reach]
        reach *= 2
    return sum_T


def waves_of(steps: int) -> int:
    """How many waves tell the noise: 0.4 T^(2/3), the rule of Lazarus et al., and at least three."""
    return max(_FEWEST_WAVES, round(0.4 * steps ** (2 / 3)))


@lru_cache(maxsize=16)
def _bases(steps: int, breaks: tuple[int, ...]) -> tuple[Array, Array]:
    """Orthonormal polynomials and steps at `breaks` [T, K], and cosines orthogonal to them [T, Q].

    A run that blows up at its end is no line: with enough steps the trend may bend twice, or its bends would be
    noise.
    """
    order = 1 if steps < 40 else 3
    fitted = order + 1 + len(breaks)
    waves = min(waves_of(steps), steps - fitted)
    place_T = np.linspace(-1, 1, steps)
    trend_TK = np.stack(
        [place_T**power for power in range(order + 1)] + [np.arange(steps) >= place for place in breaks], axis=1
    )
    cosine_TQ = np.cos(np.pi / 2 * np.outer(place_T * (1 - 1 / steps) + 1, np.arange(1, waves + fitted + 2)))
    both, _ = np.linalg.qr(np.concatenate([trend_TK, cosine_TQ], axis=1))
    return both[:, :fitted], both[:, fitted : fitted + waves]
