"""The table of a model's stages: how far apart two sides are at each, what it creates and what it was given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from ..measures.layer_results import Internals, StageDifference
from ..measures.results import Interval
from .logs.section import interval_text
from .text import number, share

_MOST_ROWS = 48
_Column = tuple[str, Callable[[StageDifference], str]]


def stage_table(found: Internals) -> tuple[str, tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """A note, the header and the rows; of many stages those that say most."""
    columns = list(_columns(found))
    shown = list(_shown(found))
    behavior, reference = usual_dtypes(found)
    notes = [behavior if behavior == reference else f"behaviour {behavior}, reference {reference}"]
    if len(shown) < len(found.stages):
        notes.append(f"{len(shown)} of {len(found.stages)} stages, all of them in report.json")
    rows = tuple(tuple(text(stage) for _, text in columns) for stage in shown)
    return "; ".join(notes), tuple(name for name, _ in columns), rows


def usual_dtypes(found: Internals) -> tuple[str, str]:
    """In which most stages compute, on the behaviour's side and on the reference's."""
    return Counter((stage.dtype, stage.reference_dtype) for stage in found.stages).most_common(1)[0][0]


def _shown(found: Internals) -> Iterator[StageDifference]:
    """All stages where they are few; else the first to differ, those that stand out, and the residual stream."""
    streams = {row.stage for row in found.heat}
    for stage in found.stages:
        few = len(found.stages) <= _MOST_ROWS
        if few or stage.stage in streams or stage.stands_out or stage.stage == found.first_difference:
            yield stage


def _columns(found: Internals) -> Iterator[_Column]:
    """Name and text of each; a narrow terminal shows the first ones."""
    usual = usual_dtypes(found)
    yield "stage", lambda stage: stage.stage
    yield "error", lambda stage: interval_text(stage.error)
    if any(stage.created is not None for stage in found.stages):
        yield "created", lambda stage: _value(stage.created)
        yield "carried in", lambda stage: _value(stage.carried)
        yield "roundings", lambda stage: _decimals(stage.times_rounding)
    if any(_remark(stage, usual) for stage in found.stages):
        yield "remark", lambda stage: _remark(stage, usual)
    yield "same values", lambda stage: share(round(stage.same, 4))
    yield "× what it reads", lambda stage: _decimals(stage.growth or stage.amplification)
    yield "1 − cosine", lambda stage: number(None if stage.cosine is None else max(0.0, 1 - stage.cosine))
    yield "max", lambda stage: number(stage.max_abs)


def _remark(stage: StageDifference, usual: tuple[str, str]) -> str:
    told = [stage.stands_out.replace("_", " ")] if stage.stands_out else []
    dtypes = stage.dtype, stage.reference_dtype
    if dtypes != usual and dtypes[0] != dtypes[1]:
        told.append(f"{stage.dtype} against {stage.reference_dtype}")
    return "; ".join(told)


def _value(interval: Interval | None) -> str:
    return number(None if interval is None else interval.value)


def _decimals(value: float | None) -> str:
    """Two decimals, and none of what is large."""
    return "" if value is None else f"{value:,.2f}" if value < 100 else f"{value:,.0f}"
