"""Which policy is each column of log-probs, where the trainer's name for it does not say?

A column of the training forward itself is π_θ: with several updates a step it moves away from μ from the first
responses of a step to the last ones, and starts again at the next step. A column of one forward before the updates,
π_old, does not. But responses that are logged in the order in which they finished, or worker by worker, may differ
more from the first to the last with either: a rise is a hint and settles nothing.

Shapes: C sampled responses, T steps, G parts of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ...logs.source import ColumnOrigin
from ...measures.log_results import ColumnPolicy
from ...reports.text import number
from ..block import UNKNOWN
from ..rows import FILE_BITS
from .examined import ExaminedResponses

Policy = Literal["behavior", "reference", "target", "unknown"]

_STEPS, _OF_A_PART = 6, 4
_ONE_SIDED_P = 1e-3
_STILL = 0.1
"""A change within a step, relative to the level, that counts as none."""


@dataclass(frozen=True)
class StepDrift:
    """By how much log mean |Δ log p| of responses rises from the first to the last of a step, beyond what their
    lengths and their surprise explain; 95 % interval with the step as the unit."""

    value: float
    low: float
    high: float
    p_value: float
    """One-sided: of a rise as clear as this where there is none."""
    steps: int


def step_drift(examined: ExaminedResponses) -> StepDrift | None:
    """None where the log has too few steps, or too few responses in them."""
    chosen = np.flatnonzero((examined.step_C != UNKNOWN) & (examined.mean_distance_C > 0))
    chosen = chosen[np.lexsort((examined.sequence_id_C[chosen], examined.step_C[chosen]))]
    part_C, count_G = _parts(examined, chosen)
    chosen = chosen[(count_G >= _OF_A_PART)[part_C]]
    step_C = np.unique(examined.step_C[chosen], return_inverse=True)[1]
    steps = int(step_C.max(initial=-1)) + 1
    if steps < _STEPS:
        return None
    part_C, count_G = _parts(examined, chosen)
    start_G = np.cumsum(count_G) - count_G
    place_C = (np.arange(len(chosen)) - start_G[part_C]) / (count_G[part_C] - 1)
    known = [np.log(examined.length_C[chosen]), np.log(np.maximum(examined.surprise_C[chosen], 1e-6))]

    def within(value_C: np.ndarray) -> np.ndarray:
        return value_C - (np.bincount(part_C, value_C) / count_G)[part_C]

    level_C, place_C = within(np.log(examined.mean_distance_C[chosen])), within(place_C)
    known_CK = np.stack([within(value_C) for value_C in known], axis=1)
    level_C, place_C = (value_C - known_CK @ _least_squares(known_CK, value_C) for value_C in (level_C, place_C))
    weight = float(place_C @ place_C)
    if weight <= 0:
        return None
    slope = float(place_C @ level_C) / weight
    score_T = np.bincount(step_C, place_C * (level_C - slope * place_C))
    error = math.sqrt(float(score_T @ score_T) * steps / (steps - 1)) / weight
    if error == 0:
        return None
    from scipy.special import stdtr, stdtrit

    t = float(stdtrit(steps - 1, 0.975))
    return StepDrift(slope, slope - t * error, slope + t * error, float(stdtr(steps - 1, -slope / error)), steps)


def _parts(examined: ExaminedResponses, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the part of a step that each chosen response is of [C], how many each part has [G]).

    Ranks write files of their own and train side by side, so a part is what one file has of a step.
    """
    part_C2 = np.stack([examined.step_C[chosen], examined.sequence_id_C[chosen] >> np.int64(FILE_BITS)], axis=1)
    _, part_C, count_G = np.unique(part_C2, axis=0, return_inverse=True, return_counts=True)
    return part_C.ravel(), count_G


def column_policies(columns: Sequence[ColumnOrigin], examined: ExaminedResponses) -> tuple[ColumnPolicy, ...]:
    """Every column with the policy that it is; of what its format leaves open, what the drift within steps says."""
    drift = step_drift(examined)
    both = {origin.policy for origin in columns} >= {"reference", "target"}
    return tuple(
        _decided(found, drift, both) if not found.settled else found
        for found in (
            ColumnPolicy(origin.column, origin.source, origin.policy, origin.settled, origin.remark)
            for origin in columns
        )
    )


def _decided(column: ColumnPolicy, drift: StepDrift | None, both: bool) -> ColumnPolicy:
    def said(policy: Policy, sentence: str) -> ColumnPolicy:
        remark = f"{column.remark}; {sentence}" if column.remark else sentence
        return replace(column, policy=policy, remark=remark)

    if both and column.policy != "target":
        return said("unknown", "the log has π_θ as well, so this is most likely π_old; its name does not say")
    if drift is None:
        return said("unknown", "cannot tell π_old from π_θ: that takes some steps with several responses each")
    change = f"within a step |Δ log p| changes by a factor of {number(math.exp(drift.value))}"
    change += f" [{number(math.exp(drift.low))}, {number(math.exp(drift.high))}] over {drift.steps} steps"
    if drift.p_value < _ONE_SIDED_P:
        looks = "π_θ that is updated meanwhile looks so, and π_old of responses logged in order of lag or worker"
        return said("unknown", f"{change}: {looks}")
    if max(abs(drift.low), abs(drift.high)) < _STILL:
        return said("reference", f"{change}: π_old, or a π_θ that the updates of a step did not move away from it")
    return said("unknown", f"cannot tell π_old from π_θ: {change}")


def _least_squares(known_CK: np.ndarray, value_C: np.ndarray) -> np.ndarray:
    return np.linalg.lstsq(known_CK, value_C, rcond=None)[0]
