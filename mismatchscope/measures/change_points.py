"""Steps at which a figure took another level, at a stated rate of false alarms though neighbouring steps are alike.

The statistic is the largest F of a single step of the mean, over all places that leave `_EDGE` of the steps on
either side. Its law without a change is simulated: AR(1) noise, as persistent as what is left of the run once the
best step is taken out, by the larger of two estimates (lag-1 correlation, and the size of slow waves, which sees
noise that is a slow process under a fast one). A smooth course that describes the run as well as the step does is
a drift and no change. Nor is noise that grew or shrank: the means before and after have to be apart, each with its
own noise. A step up and down again hides its own ends, so the first and the last two thirds are searched too, at a
share of the level. More changes are looked for on either side of one that was found (binary segmentation,
Vostrikova 1981): in a run that has none, only the first search can err.

benchmarks/calibration_trend.py has the rates of false alarms and of changes found.

Shape suffixes: R simulated runs, T steps, K places.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise

import numpy as np

from .autocorrelation import ar1_sums, persistence, waves_of
from .log_results import ChangePoint

Array = np.ndarray

MIN_STEPS = 12
"""Fewer are not searched."""
LEVEL = 0.01
"""A change is one whose p-value is below it. A run that has none shows one as often or less, but up to four times
as often where a slow process (ρ 0.8) lies under white noise: benchmarks/results/calibration_trend.md."""
_EDGE = 0.05
_FEWEST = 3
"""On either side of a change."""
_MARGIN = 0.5
"""By how much the logarithm of the likelihood of a step must be above that of a smooth course."""
_STEEPEST = 0.25
"""Share of the steps that a smooth course takes at least from one level to another."""
_OF_MEANS = 0.01
"""Level of the test that the means before and after are apart."""
_RUNS = 999
_LONGEST = 200
"""Steps of a search; longer runs are searched by means of neighbouring steps."""
_PERSISTENCES = np.append(np.arange(19) * 0.05, 0.95)
_LENGTHS = np.round(12 * 1.15 ** np.arange(21)).astype(int)
"""Whose law is simulated: the largest F changes little from one to the next."""


def change_points(step_T: Array, value_T: Array, *, level: float = LEVEL) -> tuple[ChangePoint, ...]:
    """All changes of level, in the order of the steps. A figure that is positive throughout is searched by its
    logarithm; `before` and `after` are the means of its values up to the neighbouring changes."""
    found: list[tuple[int, float]] = []
    open_parts = [(0, len(value_T))] if len(value_T) else []
    while open_parts:
        start, stop = open_parts.pop()
        third = (stop - start) // 3
        parts = [(start, stop, 1.5), (start, stop - third, 6.0), (start + third, stop, 6.0)]
        changes = [(first, weight, largest_change(value_T[first:last])) for first, last, weight in parts]
        clear = [(w * each[1], first + each[0]) for first, w, each in changes if each and w * each[1] < level]
        if not clear:
            continue
        p, place = min(clear)
        found.append((place, p))
        open_parts += [(start, place), (place, stop)]
    found.sort()
    if not found:
        return ()
    edges = [0, *(place for place, _ in found), len(value_T)]
    means = [float(value_T[a:b].mean()) for a, b in pairwise(edges)]
    return tuple(
        ChangePoint(step=int(step_T[place]), before=means[i], after=means[i + 1], p_value=p)
        for i, (place, p) in enumerate(found)
    )


def largest_change(value_T: Array) -> tuple[int, float] | None:
    """(Place of the first value at the new level, p-value) of the clearest change; None where there are too few
    steps, nothing varies, a smooth course describes them as well, or the two means are not apart."""
    width = max(1, math.ceil(len(value_T) / _LONGEST))
    steps = len(value_T) // width
    if steps < MIN_STEPS:
        return None
    value_T = value_T / (np.abs(value_T).max() or 1.0)  # squares of the largest floats overflow
    if np.ptp(value_T) <= 1e-12:
        return None
    mean_T = value_T[: steps * width].reshape(steps, width).mean(axis=1)
    searched_T = np.log(mean_T) if (mean_T > 0).all() else mean_T
    f_K, first = _f_statistics(searched_T[None])
    place = first + int(f_K[0].argmax())
    after_T = np.arange(steps) >= place
    residual_T = searched_T - np.where(after_T, searched_T[after_T].mean(), searched_T[~after_T].mean())
    unexplained = float(residual_T @ residual_T)
    if unexplained <= 1e-24 * float(np.abs(searched_T).max()) ** 2 * steps:
        return _refined(value_T, place * width, width), 1 / (_RUNS + 1)
    rho = max(persistence(residual_T, fitted=2), _slow_persistence(residual_T))
    ahead = steps / 2 * math.log(_off_a_smooth_course(searched_T) / unexplained) * (1 - rho) / (1 + rho)
    if ahead < _MARGIN or not _means_are_apart(mean_T[~after_T], mean_T[after_T], (1 + rho) / (1 - rho)):
        return None
    law_R = _law(int(_LENGTHS[np.argmin(np.abs(np.log(_LENGTHS / steps)))]), math.ceil(round(rho / 0.05, 6)))
    beyond = len(law_R) - int(np.searchsorted(law_R, f_K[0].max(), side="left"))
    return _refined(value_T, place * width, width), (1 + beyond) / (len(law_R) + 1)


def _means_are_apart(before_T: Array, after_T: Array, inflation: float) -> bool:
    """Welch's (1947) test of two means, of positive values that of their logarithms; `inflation` is that of their
    variance by autocorrelation.

    Noise that shrinks, as where batches grow, lifts the mean of a logarithm and leaves that of the values alone.
    """
    from scipy.special import stdtr

    means, variances, degrees = [], [], []
    positive = before_T.min() > 0 and after_T.min() > 0
    for part_T in (before_T, after_T):
        mean, variance = float(part_T.mean()), float(part_T.var(ddof=1)) / len(part_T) * inflation
        means.append(math.log(mean) if positive else mean)
        variances.append(variance / mean**2 if positive else variance)
        degrees.append(len(part_T) - 1)
    variance = sum(variances)
    if variance == 0:
        return means[0] != means[1]
    freedom = variance**2 / sum(each**2 / df for each, df in zip(variances, degrees, strict=True))
    return 2 * float(stdtr(freedom, -abs(means[1] - means[0]) / math.sqrt(variance))) < _OF_MEANS


def _f_statistics(value_RT: Array) -> tuple[Array, int]:
    """F of a step of the mean at each place [R, K], and the first place."""
    steps = value_RT.shape[1]
    edge = max(_FEWEST, math.ceil(_EDGE * steps))
    centred_RT = value_RT - value_RT.mean(axis=1, keepdims=True)
    place_K = np.arange(edge, steps - edge + 1)
    sum_RK = np.cumsum(centred_RT, axis=1)[:, place_K - 1]
    between_RK = sum_RK**2 * (steps / (place_K * (steps - place_K)))
    within_RK = np.sum(centred_RT**2, axis=1, keepdims=True) - between_RK
    with np.errstate(divide="ignore"):
        return between_RK / np.maximum(within_RK, 0.0) * (steps - 2), edge


def _slow_persistence(residual_T: Array) -> float:
    """The lag-1 correlation of the AR(1) process that has as much of its variance in slow waves, (1 + ρ) / (1 − ρ)
    times that of white noise. Of a single change the slowest wave has most, and it is left out."""
    steps, waves = len(residual_T), waves_of(len(residual_T))
    wave_TQ = np.cos(np.pi / steps * np.outer(np.arange(steps) + 0.5, np.arange(2, waves + 2)))
    energy = 2 / steps * float(np.mean((residual_T @ wave_TQ) ** 2))
    share = max(1.0, energy / float(np.mean(residual_T**2)))
    return min((share - 1) / (share + 1), float(_PERSISTENCES[-1]))


def _off_a_smooth_course(value_T: Array) -> float:
    """What least squares leave of the values about the best of a cubic and of slopes between two levels."""
    ramp_RT, power_TK = _smooth_courses(len(value_T))
    centred_T = value_T - value_T.mean()
    explained = max(float(np.max((ramp_RT @ centred_T) ** 2)), float(np.sum((centred_T @ power_TK) ** 2)))
    total = float(centred_T @ centred_T)
    return max(total - explained, 1e-24 * total)


@lru_cache(maxsize=16)
def _smooth_courses(steps: int) -> tuple[Array, Array]:
    """Slopes between two levels, each over a quarter of the steps or more [R, T], and an orthonormal basis of
    cubics [T, K]; all of mean 0 and norm 1."""
    place_T, ramps = np.arange(steps), []
    for width in np.unique(np.ceil(steps * np.geomspace(_STEEPEST, 1, 9)).astype(int)):
        start_R = np.unique(np.linspace(0, steps - width, 1 + 8 * (steps - width) // width).astype(int))
        ramps.append(np.clip((place_T - start_R[:, None]) / (width - 1), 0, 1))
    ramp_RT = np.concatenate(ramps)
    ramp_RT -= ramp_RT.mean(axis=1, keepdims=True)
    power_TK = np.polynomial.legendre.legvander(np.linspace(-1, 1, steps), 3)
    return ramp_RT / np.linalg.norm(ramp_RT, axis=1, keepdims=True), np.linalg.qr(power_TK)[0][:, 1:]


@lru_cache(maxsize=512)
def _law(steps: int, persistence_index: int) -> Array:
    """The largest F of runs without a change, rising [R]. The same seed each time: a report is made again alike."""
    rho = float(_PERSISTENCES[persistence_index])
    noise_RT = np.random.default_rng([steps, persistence_index]).normal(size=(_RUNS, steps))
    noise_RT[:, 1:] *= math.sqrt(1 - rho**2)
    f_RK, _ = _f_statistics(ar1_sums(noise_RT.T, rho).T)
    return np.sort(f_RK.max(axis=1))


def _refined(value_T: Array, place: int, width: int) -> int:
    """The clearest place among the single steps about one that was found by means of `width` steps."""
    if width == 1:
        return place
    f_K, first = _f_statistics(value_T[None])
    low, high = max(0, place - width - first), place + width + 1 - first
    return first + low + int(f_K[0, low:high].argmax())
