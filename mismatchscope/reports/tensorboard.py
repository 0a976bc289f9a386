"""A report's main figures as TensorBoard scalars: of each step at that step, of the whole log at its last one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MissingDependencyError
from ..measures.log_results import Trend
from .figure_paths import figure_at
from .watched_figures import WATCHED

if TYPE_CHECKING:
    from .document import Report


class Scalars:
    """Writes to one directory; a step's figure is written once, again only when it has changed."""

    def __init__(self, directory: Path) -> None:
        """Raises `MissingDependencyError` where torch or tensorboard is not installed."""
        try:
            import torch  # noqa: F401 - the writer is a part of it
        except ImportError:
            raise MissingDependencyError("torch", "torch", "--tensorboard") from None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingDependencyError("tensorboard", "tensorboard", "--tensorboard") from None
        self._writer: Any = SummaryWriter(str(directory))
        self._written: dict[tuple[str, int], float] = {}

    def write(self, report: Report) -> None:
        """Add what is new in a report."""
        for name, step, value in scalars_of(report):
            if self._written.get((name, step)) != value:
                self._written[name, step] = value
                self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def scalars_of(report: Report) -> Iterator[tuple[str, int, float]]:
    """Name, step and value of every scalar: `step/…` of the steps, `run/…` of all that was read."""
    for name, trend in _trends(report.trend, "step"):
        for step, value in zip(trend.steps, trend.values, strict=True):
            if value is not None:
                yield name, step, value
    steps = report.log.steps if report.log is not None else None
    for path in WATCHED:
        value = figure_at(report, path).value
        if value is not None:
            yield f"run/{path}", steps[1] if steps else 0, float(value)


def _trends(record: Any, name: str) -> Iterator[tuple[str, Trend]]:
    if isinstance(record, Trend):
        yield name, record
    elif record is not None:
        for entry in fields(record):
            yield from _trends(getattr(record, entry.name), f"{name}/{entry.name}")
