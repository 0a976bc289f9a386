"""The metrics that a run logged: a JSONL export of wandb, or a directory of TensorBoard events."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import MissingDependencyError, UsageError
from ..foreign_text import printable
from ..input_files import check_regular, parse_json, reason

LoggedMetrics = dict[str, dict[int, float]]
"""By the metric's name, its value at each step; one that is logged twice at a step has the later value."""

# wandb counts its own calls in `_step`; where a trainer logs its step too, that is meant.
_STEP_KEYS = (
    "training/global_step",
    "train/global_step",
    "trainer/global_step",
    "global_step",
    "train/step",
    "step",
    "_step",
)
_EVENTS = "events.out.tfevents."


def read_metrics(path: Path) -> LoggedMetrics:
    """The scalars of a `.jsonl` file, one object a step, or of the event files below a directory.

    Raises `UsageError` for what is neither, and `MissingDependencyError` for events without TensorBoard.
    """
    try:
        found = _of_events(path) if path.is_dir() else _of_lines(path)
    except OSError as error:
        raise UsageError(
            f"The metrics {path} cannot be read: {reason(error)}.", hint="check --compare-with"
        ) from None
    if not found:
        raise UsageError(
            f"{path} has no metric with a step.",
            hint=f"give JSONL with {', '.join(_STEP_KEYS[-3:])} in each object, or TensorBoard's directory",
        )
    return found


def _of_lines(path: Path) -> LoggedMetrics:
    check_regular(path)
    found: LoggedMetrics = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = parse_json(line)
            except ValueError as error:
                if not line.endswith(b"\n"):
                    break  # a running job is writing it
                raise UsageError(
                    f"{path}, line {number} is not JSON: {printable(reason(error))}.", hint="check --compare-with"
                ) from None
            for name, step, value in _scalars(row):
                found.setdefault(name, {})[step] = value
    return found


def _scalars(row: Any) -> Iterator[tuple[str, int, float]]:
    if not isinstance(row, dict):
        return
    step = next((row[key] for key in _STEP_KEYS if _is_number(row.get(key))), None)
    if step is None or not math.isfinite(step):
        return
    for name, value in _flat(row):
        if name not in _STEP_KEYS and _is_number(value):
            yield name, int(step), float(value)


def _flat(row: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested objects by their paths, as trackers show them."""
    for name, value in row.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _of_events(path: Path) -> LoggedMetrics:
    if not any(path.rglob(f"{_EVENTS}*")):
        return {}
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError:
        raise MissingDependencyError("tensorboard", "tensorboard", "Reading TensorBoard's events") from None
    found: LoggedMetrics = {}
    for directory in sorted({file.parent for file in path.rglob(f"{_EVENTS}*")}):
        events = EventAccumulator(str(directory), size_guidance={"scalars": 0})
        events.Reload()
        for name in events.Tags()["scalars"]:
            found.setdefault(name, {}).update({event.step: event.value for event in events.Scalars(name)})
    return found
