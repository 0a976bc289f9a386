"""Gates on the report of the probe `weights`: `stages.behavior.kinds.stale > 0`.

Tensors are counted, not sampled, so that a count is exact where all of them were compared. Where some were not,
more may differ than were seen to.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Sequence

from .. import gate
from ..errors import ConfigError
from ..measures.tensor_results import Kind, Status
from ..reports.figure_ends import LOWER_BOUND, Figure
from ..reports.weights_report import Side, WeightsReport, WeightsStage

_UPDATED = "_updated"
_STAGES = [f"{side}{updated}" for side in typing.get_args(Side) for updated in ("", _UPDATED)]
_COUNTS = [*typing.get_args(Status), "reordered", "transposed", "cast"]
_KINDS = [kind for kind in typing.get_args(Kind) if kind != "reordered"]
_OPEN = ("missing", "not_compared")


def decide(report: WeightsReport, expressions: Sequence[str]) -> WeightsReport:
    """The report with its gates. Raises `ConfigError` as `check` does."""
    gates = [gate.parse(expression, _check_path) for expression in expressions]
    decided = []
    for each in gates:
        figure = _figure_at(report, each.path)
        decided.append(gate.decided(each, figure, figure, each.number))
    return report.model_copy(update={"gates": decided})


def check(expressions: Sequence[str]) -> None:
    """Raise `ConfigError`, before an engine starts, for what is no gate on weights."""
    for expression in expressions:
        if gate.parse(expression, _check_path).relative is not None:
            raise ConfigError(
                f"'{expression}' is relative to a baseline, and weights are held against none.",
                hint="write the number without a sign",
            )


def _known_paths() -> list[str]:
    figures = [f"counts.{status}" for status in _COUNTS] + [f"kinds.{kind}" for kind in _KINDS]
    return [f"stages.{stage}.{figure}" for stage in _STAGES for figure in figures]


def _check_path(path: str) -> None:
    known = _known_paths()
    if path not in known:
        nearest = difflib.get_close_matches(path, known, n=2) or ["stages.behavior.counts.differs"]
        raise ConfigError(
            f"The report of weights has no figure at '{path}'.", hint=f"did you mean {' or '.join(nearest)}?"
        )


def _figure_at(report: WeightsReport, path: str) -> Figure:
    _, name, group, key = path.split(".")
    stage = next((stage for stage in report.stages if name in _names(stage)), None)
    if stage is None:
        present = ", ".join(_names(stage)[0] for stage in report.stages)
        return Figure(None, reason=f"there is no {name} among the stages of this report: {present}")
    if stage.reason is not None:
        return Figure(None, reason=stage.reason)
    value = (stage.kinds if group == "kinds" else stage.counts).get(key, 0)
    unknown = sum(stage.counts.get(status, 0) for status in _OPEN)
    if unknown and stage.side != "disk" and key not in _OPEN:
        return Figure(value, value, value + unknown, reason=LOWER_BOUND)
    return Figure(value, value, value)


def _names(stage: WeightsStage) -> list[str]:
    """One engine that is on both sides is each of them."""
    sides = ("both", "behavior", "reference") if stage.side == "both" else (stage.side,)
    return [f"{side}{_UPDATED if stage.after_update else ''}" for side in sides]
