"""What a plan needs, made: what fits one process there, the rest and what failed there stored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..errors import DiskFullError, MismatchScopeError
from .plan import Plan
from .side_by_side import DividedPlan
from .traces import ProbeTraces, TraceMaker


def make_traces(maker: TraceMaker, plan: Plan, parts: DividedPlan, logs: Path) -> ProbeTraces:
    """Make what is missing of a plan, divided into `parts`. Raises what drawing the tokens does, and
    `DiskFullError`."""
    found = maker.make(parts.rest, parts.side_by_side)
    for number, comparison in enumerate(parts.side_by_side, start=len(parts.rest.settings) + 2):
        try:
            maker.make_side_by_side(comparison, found, logs / f"start-{number}.log")
        except DiskFullError:
            raise
        except MismatchScopeError as error:
            found.not_side_by_side[comparison] = error
    if found.not_side_by_side:
        failed = list(found.not_side_by_side)
        stored = maker.make(replace(plan, comparisons=failed, greedy=(), looks=()))
        for name in ("traces", "errors", "left_out"):
            getattr(found, name).update(getattr(stored, name))
    return found
