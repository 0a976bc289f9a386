"""Steps at which a figure took another level, at a stated rate of false alarms though neighbouring steps are alike.

The statistic is the largest F of a single step of the mean, over all places that leave `_EDGE` of the steps on
either side. Its law without a change is simulated: AR(1) noise, as persistent as what is left of the run once the
best step is taken out, by the larger of two estimates (lag-1 correlation, and the size of slow waves, which sees
noise that is a slow process under a fast one). A line that describes the run as well as the step does is a drift
and no change; of lines that rise by twice the noise up to one in seven is taken for one all the same. A step up and
down again hides its own ends, so the first and the last two thirds are searched too, at a share of the level. More
changes are looked for on either side of one that was found (binary segmentation, Vostrikova 1981): in a run that
has none, only the first search can err.

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
"""A change is one whose p-value is below it. A run that has none shows one as often or less, but up to six times as
often where the noise is most persistent (ρ 0.8): benchmarks/results/calibration_trend.md."""
_EDGE = 0.05
_FEWEST = 3
"""On either side of a change."""
_MARGIN = 2.0
"""By how much the logarithm of the likelihood of a step must be above that of a line."""
_RUNS = 999
_LONGEST = 200
"""Steps of a search; longer runs are searched by means of neighbouring steps."""
_PERSISTENCES = np.append(np.arange(19) * 0.05, 0.95)
_LENGTHS = np.round(12 * 1.15 ** np.arange(21)).astype(int)
"""Whose law is simulated: the largest F changes little from one to the next."""


def change_points(step_T: Array, value_T: Array, *, level: float = LEVEL) -> tuple[ChangePoint, ...]:
    """All changes of level, in the order of the steps. A figure that is positive throughout is searched by its
    logarithm; `before` and `after` are the means of its values up to the neighbouring changes."""
    searched_T = np.log(value_T) if len(value_T) and (value_T > 0).all() else value_T
    found: list[tuple[int, float]] = []
    open_parts = [(0, len(value_T))] if len(value_T) else []
    while open_parts:
        start, stop = open_parts.pop()
        third = (stop - start) // 3
        parts = [(start, stop, 1.5), (start, stop - third, 6.0), (start + third, stop, 6.0)]
        changes = [(first, weight, largest_change(searched_T[first:last])) for first, last, weight in parts]
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
    steps, nothing varies, or a line describes them as well."""
    width = max(1, math.ceil(len(value_T) / _LONGEST))
    steps = len(value_T) // width
    if steps < MIN_STEPS or np.ptp(value_T) <= 1e-12 * np.abs(value_T).max():
        return None
    mean_T = value_T[: steps * width].reshape(steps, width).mean(axis=1)
    f_K, first = _f_statistics(mean_T[None])
    place = first + int(f_K[0].argmax())
    residual_T = mean_T - np.where(np.arange(steps) < place, mean_T[:place].mean(), mean_T[place:].mean())
    unexplained = float(residual_T @ residual_T)
    if unexplained <= 1e-24 * float(np.abs(mean_T).max()) ** 2 * steps:
        return _refined(value_T, place * width, width), 1 / (_RUNS + 1)
    rho = max(persistence(residual_T, fitted=2), _slow_persistence(residual_T))
    ahead = steps / 2 * math.log(_off_a_line(mean_T) / unexplained) * (1 - rho) / (1 + rho)
    if ahead < _MARGIN:
        return None
    law_R = _law(int(_LENGTHS[np.argmin(np.abs(np.log(_LENGTHS / steps)))]), math.ceil(round(rho / 0.05, 6)))
    beyond = len(law_R) - int(np.searchsorted(law_R, f_K[0].max(), side="left"))
    return _refined(value_T, place * width, width), (1 + beyond) / (len(law_R) + 1)


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


def _off_a_line(value_T: Array) -> float:
    """What least squares leave of the values about a line."""
    place_T = np.linspace(-1, 1, len(value_T))
    centred_T = value_T - value_T.mean()
    return float(centred_T @ centred_T - (centred_T @ place_T) ** 2 / (place_T @ place_T))


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
