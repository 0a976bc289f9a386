"""Every main figure over the steps of a run, with its slope, its change since the first steps and its change
points.

What a level means differs from run to run; what a run did since its own first steps does not (docs/measures.md).

Shapes: T steps, C clusters (prompts) of a step, E rows of the table of steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from ..measures.autocorrelation import relative_change, slope
from ..measures.binned_sums import ABS, IMPURITY, KL, LOG_RATIO, RATIO, TOKENS, TV
from ..measures.change_points import change_points
from ..measures.interval_rows import label_intervals
from ..measures.intervals import ANY, NONNEGATIVE, UNIT
from ..measures.log_results import RunTrends, SequenceTrends, TokenTrends, Trend, Trends
from ..measures.results import Interval
from ..measures.step_weights import comparable_size, ess_interval, ess_of_groups, mean_weight
from .groups import (
    ENTROPIES,
    ENTROPY,
    LAG,
    LAGS,
    RESPONSES,
    REWARD,
    REWARDS,
    WHOLE,
    WHOLE_LOG_RATIO,
    WHOLE_TV,
    GroupSums,
)

Array = np.ndarray

WINDOW = 1 / 5
"""Share of the steps that are the first ones, and the last ones; at least `FEWEST` of each where there are twice as
many."""
FEWEST = 3


@dataclass(frozen=True)
class _Mean:
    """The mean of a column of the table of steps over another one, its count."""

    sum_column: int
    count_column: int
    bounds: tuple[float, float] = ANY
    sign: int = 1


_TOKEN = {
    "tv": _Mean(TV, TOKENS, UNIT),
    "kl": _Mean(KL, TOKENS, NONNEGATIVE),
    "k1": _Mean(LOG_RATIO, TOKENS, sign=-1),
    "abs_logprob_diff": _Mean(ABS, TOKENS, NONNEGATIVE),
    "ratio": _Mean(RATIO, TOKENS, NONNEGATIVE),
    "tv_of_impurity": _Mean(TV, IMPURITY, NONNEGATIVE),
}
_SEQUENCE = {"log_ratio": _Mean(WHOLE_LOG_RATIO, WHOLE), "tv": _Mean(WHOLE_TV, WHOLE, UNIT)}
_RUN = {
    "reward": _Mean(REWARD, REWARDS),
    "entropy": _Mean(ENTROPY, ENTROPIES),
    "response_length": _Mean(TOKENS, RESPONSES, NONNEGATIVE),
    "lag": _Mean(LAG, LAGS),
}


_ENDINGS = {
    "reward": ("reward", "reward/mean", "rewards/mean", "raw_reward"),
    "entropy": ("entropy",),
    "grad_norm": ("grad_norm", "raw_grad_norm"),
}
"""What trainers call a figure of the run, after the last of the words that say where in the run it is."""


def trends_of(
    sums: GroupSums,
    *,
    tolerances: Mapping[str, float] | None = None,
    scalars: Mapping[str, Mapping[int, float]] | None = None,
    confidence: float = 0.95,
) -> Trends | None:
    """The trends of a run; None where the log has fewer than two steps.

    `tolerances` are by figure, "token.tv" or "sequence.ess_fraction": ESS passes one by falling below it, all
    others by rising above it. `scalars` are figures of the run that the trainer logged, by name ("grad_norm", and
    any other name of `RunTrends` that the log itself does not have) and step.
    """
    table, limits = sums.tables["step"], dict(tolerances or {})
    (step_T, start_T1), sum_EF = table.labels(), table.sum_EF
    if len(step_T) < 2:
        return None

    def means(room: str, columns: Mapping[str, _Mean]) -> dict[str, Trend | None]:
        found = {}
        for name, column in columns.items():
            at_T = label_intervals(
                column.sign * sum_EF[:, column.sum_column],
                sum_EF[:, column.count_column],
                start_T1,
                confidence=confidence,
                bounds=column.bounds,
            )
            found[name] = trend(step_T, at_T, tolerance=limits.get(f"{room}.{name}"), confidence=confidence)
        return found

    sequence = means("sequence", _SEQUENCE)
    log_EG, whole_E = table.log_EG, sum_EF[:, WHOLE]
    whole_T = [(log_EG[start:stop], whole_E[start:stop]) for start, stop in pairwise(start_T1.tolist())]
    weight_T = [mean_weight(log_CG, whole_C, confidence=confidence) for log_CG, whole_C in whole_T]
    sequence["ratio"] = trend(step_T, weight_T, tolerance=limits.get("sequence.ratio"), confidence=confidence)
    sequence["ess_fraction"] = _ess(step_T, whole_T, limits.get("sequence.ess_fraction"), confidence)
    run = means("run", _RUN)
    for name, value in (scalars or {}).items():
        if name in RunTrends.__dataclass_fields__ and run.get(name) is None:
            run[name] = scalar_trend(value, confidence=confidence)
    return Trends(
        token=TokenTrends(**means("token", _TOKEN)), sequence=SequenceTrends(**sequence), run=RunTrends(**run)
    )


def _ess(
    step_T: Array, whole_T: list[tuple[Array, Array]], tolerance: float | None, confidence: float
) -> Trend | None:
    size = comparable_size([whole_C for _, whole_C in whole_T])
    at_T = [
        ess_interval(log_CG, whole_C, confidence=confidence)
        if size is None
        else ess_of_groups(log_CG, whole_C, size, confidence=confidence)
        for log_CG, whole_C in whole_T
    ]
    found = trend(step_T, at_T, tolerance=tolerance, below=True, confidence=confidence)
    return None if found is None else replace(found, at_responses=size)


def run_scalars(logged: Mapping[str, Mapping[int, float]] | None) -> dict[str, Mapping[int, float]]:
    """Which of a trainer's metrics are figures of the run: the first name that ends as one of them does."""
    found = {}
    for figure, endings in _ENDINGS.items():
        names = [name for name in sorted(logged or {}) for end in endings if f"/{name}".endswith(f"/{end}")]
        if logged and names:
            found[figure] = logged[names[0]]
    return found


def scalar_trend(value_by_step: Mapping[int, float], *, confidence: float = 0.95) -> Trend | None:
    """Of a figure that is known as one number a step."""
    steps = sorted(value_by_step)
    at_T = [Interval(value_by_step[step], None, None, confidence, 1, 1, "one-number") for step in steps]
    return trend(np.array(steps, dtype=np.int64), at_T, confidence=confidence)


def trend(
    step_T: Array,
    at_T: list[Interval],
    *,
    tolerance: float | None = None,
    below: bool = False,
    confidence: float = 0.95,
) -> Trend | None:
    """Of a figure with an interval at each step, which rise; None where it is known at fewer than two.

    A step whose value is unknown or infinite has a place in `steps` and is in no slope, change or change point.
    """
    finite_T = np.array([each.value is not None and math.isfinite(each.value) for each in at_T], dtype=bool)
    if finite_T.sum() < 2:
        return None
    value_F = np.array([each.value for each in at_T], dtype=float)[finite_T]
    step_F = step_T[finite_T]
    window = min(max(FEWEST, round(WINDOW * len(value_F))), len(value_F) // 2)
    changes = change_points(step_F, value_F)
    breaks = tuple(int(np.searchsorted(step_F, each.step)) for each in changes)
    return Trend(
        steps=tuple(step_T.tolist()),
        values=tuple(each.value for each in at_T),
        low=tuple(each.low for each in at_T),
        high=tuple(each.high for each in at_T),
        slope=slope(step_F.astype(float), value_F, breaks=breaks, confidence=confidence),
        relative=relative_change(value_F, window, breaks=breaks, confidence=confidence),
        first_steps=(int(step_F[0]), int(step_F[window - 1])),
        last_steps=(int(step_F[-window]), int(step_F[-1])),
        change_points=changes,
        tolerance=tolerance,
        passed_at=None if tolerance is None else _passed_at(step_T, at_T, tolerance, below),
    )


def _passed_at(step_T: Array, at_T: list[Interval], tolerance: float, below: bool) -> int | None:
    """The first of as many steps in a row as `steps_beyond` asks for; those without an interval are passed over."""
    confidence = at_T[0].confidence
    ends = [(int(step), each.high if below else each.low) for step, each in zip(step_T, at_T, strict=True)]
    known = [(step, end < tolerance if below else end > tolerance) for step, end in ends if end is not None]
    needed = steps_beyond(len(known), confidence)
    for place in range(len(known) - needed + 1):
        if all(beyond for _, beyond in known[place : place + needed]):
            return known[place][0]
    return None


def steps_beyond(steps: int, confidence: float) -> int:
    """How many steps in a row have to be beyond a tolerance, so that a run that stays at it shows as many at all in
    at most 1 − confidence of cases. One step's interval is beyond it, at one end, in (1 − confidence) / 2."""
    if steps == 0:
        return 1
    return max(1, math.ceil(math.log((1 - confidence) / steps) / math.log((1 - confidence) / 2)))
