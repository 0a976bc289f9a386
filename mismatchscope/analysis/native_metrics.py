"""The metrics that trainers log, recomputed from a log by their own definitions, and held against what was logged.

Shapes: S responses of a block.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..logs.metrics_file import LoggedMetrics
from ..measures.log_results import NativeMetric
from ..measures.native.batch_sums import BatchSums, Definition, sums_by_batch
from ..measures.native.registry import EVERY_METRIC, TRAINERS
from .block import UNKNOWN, LogBlock
from .settings import AnalysisSettings

_RELATIVE, _ABSOLUTE = 1e-3, 1e-6
"""Trainers compute in float32, whose ρ − 1 − log ρ is off by some 1e-7."""

_OFFSETS = (0, -1, 1)
"""A tracker may number the step that a log calls 5 as 4 or 6."""

_SHOWN = 5


class NativeMetrics:
    """Sums of each batch: a step, and within it a rank of the trainer."""

    def __init__(self, settings: AnalysisSettings) -> None:
        self._sums: dict[tuple[int, int], BatchSums] = {}

    def add(self, block: LogBlock) -> None:
        step_S, rank_S = (block.label_S(name) for name in ("step", "rank"))
        unknown_S = np.full(len(block.length_S), UNKNOWN)
        key_S2 = np.column_stack([unknown_S if label_S is None else label_S for label_S in (step_S, rank_S)])
        key_B2, batch_S = np.unique(key_S2, axis=0, return_inverse=True)
        found = sums_by_batch(block.logp_mu_N, block.logp_pi_N, block.offsets_S1, batch_S.ravel(), EVERY_METRIC)
        for batch, sums in found.items():
            step, rank = key_B2[batch].tolist()
            self._sums.setdefault((step, rank), BatchSums()).merge(sums)

    def merge(self, other: NativeMetrics) -> None:
        for key, sums in other._sums.items():
            self._sums.setdefault(key, BatchSums()).merge(sums)

    @property
    def steps(self) -> tuple[int, int] | None:
        """The first and the last step of the log; None where it has none."""
        steps = [step for step, _ in self._sums if step != UNKNOWN]
        return (min(steps), max(steps)) if steps else None

    def results(self, trainers: Sequence[str], logged: LoggedMetrics | None = None) -> list[NativeMetric]:
        """The metrics of these trainers, each beside what a metrics file has under its name. Step by step are those
        of a single trainer, and those that the run logged.

        Of several settings that a trainer logs under one name, that which reproduces the file's values best. Where
        all that reproduce agree on how far the tracker's steps are ahead, so far ahead are those of the others.
        """
        found = list(self._beside(trainers, logged, _OFFSETS))
        offset = _agreed_offset(found)
        return found if offset is None else list(self._beside(trainers, logged, (offset,)))

    def _beside(
        self, trainers: Sequence[str], logged: LoggedMetrics | None, offsets: Sequence[int]
    ) -> Iterator[NativeMetric]:
        whole = _Ranks.of(self._sums)
        steps = {step: _Ranks.of(sums) for step, sums in self._by_step().items()}
        for trainer in trainers:
            by_name: dict[str, list[NativeMetric]] = {}
            for definition in TRAINERS[trainer]:
                values = None if logged is None else _named(logged, definition.name)
                shown = steps if len(trainers) == 1 or values is not None else {}
                by_name.setdefault(definition.name, []).append(
                    _metric(trainer, definition, whole, shown, values, offsets)
                )
            for variants in by_name.values():
                yield from variants if variants[0].logged is None else [min(variants, key=_distance)]

    def _by_step(self) -> dict[int, dict[tuple[int, int], BatchSums]]:
        """In rising order; what has no step is left out."""
        found: dict[int, dict[tuple[int, int], BatchSums]] = {}
        for (step, rank), sums in sorted(self._sums.items(), key=lambda item: item[0]):
            if step != UNKNOWN:
                found.setdefault(step, {})[step, rank] = sums
        return found


@dataclass(frozen=True)
class _Ranks:
    """Sums over some batches: of all, and by rank."""

    whole: BatchSums
    by_rank: dict[int, BatchSums]

    @classmethod
    def of(cls, sums: Mapping[tuple[int, int], BatchSums]) -> _Ranks:
        whole = BatchSums()
        by_rank: dict[int, BatchSums] = {}
        for (_, rank), each in sums.items():
            whole.merge(each)
            by_rank.setdefault(rank, BatchSums()).merge(each)
        return cls(whole, by_rank)

    def value(self, definition: Definition) -> float | None:
        """Of all as one batch, or the mean of the ranks'; None where it is not finite."""
        if definition.over_ranks:
            value = sum(map(definition.value, self.by_rank.values())) / len(self.by_rank)
        else:
            value = definition.value(self.whole)
        return value if math.isfinite(value) else None


def _metric(
    trainer: str,
    definition: Definition,
    whole: _Ranks,
    steps: Mapping[int, _Ranks],
    logged: Mapping[int, float] | None,
    offsets: Sequence[int],
) -> NativeMetric:
    values = [batches.value(definition) for batches in steps.values()]
    compared = _Comparison(None) if logged is None else _compared(list(steps), values, logged, offsets)
    return NativeMetric(
        trainer=trainer,
        name=definition.name if not definition.variant else f"{definition.name} ({definition.variant})",
        definition=definition.definition,
        estimates=definition.estimates,
        value=whole.value(definition),
        steps=tuple(steps),
        values=tuple(values),
        logged=compared.logged,
        reproduces=compared.reproduces,
        largest_difference=compared.largest,
        step_offset=compared.offset,
    )


def at_steps_of_log(logged: LoggedMetrics, metrics: Sequence[NativeMetric]) -> LoggedMetrics:
    """What the run logged, with the log's step numbers where all metrics that reproduce agree on the offset."""
    offset = _agreed_offset(metrics)
    if offset is None:
        return logged
    return {name: {step - offset: value for step, value in by_step.items()} for name, by_step in logged.items()}


def _agreed_offset(metrics: Sequence[NativeMetric]) -> int | None:
    offsets = {metric.step_offset for metric in metrics if metric.reproduces}
    return offsets.pop() if len(offsets) == 1 else None


def why_not_compared(logged: LoggedMetrics, metrics: Sequence[NativeMetric]) -> str | None:
    """Why nothing that the run logged could be held against the log; None where something was."""
    named = [metric for metric in metrics if metric.logged is not None]
    if any(metric.reproduces is not None for metric in named):
        return None
    if named:
        steps = {step for metric in named for step in metric.steps}
        theirs = {step for by_step in logged.values() for step in by_step}
        return f"no metric of the run was compared: its steps are {_span(theirs)}, those of the log {_span(steps)}"
    shown = ", ".join(sorted(logged)[:_SHOWN]) + (", …" if len(logged) > _SHOWN else "")
    others = [name for name, known in TRAINERS.items() if any(_named(logged, each.name) for each in known)]
    ending = f"; --trainer {others[0]} knows some of them" if others else ""
    return f"none of the metrics that the run logged ({shown}) can be recomputed from a log{ending}"


def _span(steps: Collection[int]) -> str:
    return f"{min(steps):,}–{max(steps):,}" if steps else "not known"


def trainers_of(format_name: str) -> list[str]:
    """The trainers whose metrics a log of this format is shown: its own, or all where the format is of none."""
    return [format_name] if format_name in TRAINERS else list(TRAINERS)


def _named(logged: LoggedMetrics, name: str) -> Mapping[int, float] | None:
    """The values under a name, or under one that ends with it, as trackers add prefixes."""
    return logged.get(name) or next(
        (values for other, values in sorted(logged.items()) if other.endswith(f"/{name}")), None
    )


class _Comparison(NamedTuple):
    """`logged` is what was logged at each step, `offset` how far the tracker's steps are ahead. It is not known
    whether a metric reproduces where no step is in both."""

    logged: tuple[float | None, ...] | None
    reproduces: bool | None = None
    largest: float | None = None
    offset: int = 0


def _compared(
    steps: Sequence[int], values: Sequence[float | None], logged: Mapping[int, float], offsets: Sequence[int]
) -> _Comparison:
    best = _Comparison((None,) * len(steps))
    for offset in offsets:
        pairs = [(value, logged.get(step + offset)) for step, value in zip(steps, values, strict=True)]
        gaps = list(_gaps(pairs))
        if not gaps:
            continue
        same = all(gap <= _ABSOLUTE + _RELATIVE * abs(ours) for gap, ours in gaps)
        if best.reproduces is None or same:
            best = _Comparison(tuple(other for _, other in pairs), same, max(gap for gap, _ in gaps), offset)
        if same:
            break
    return best


def _gaps(pairs: Sequence[tuple[float | None, float | None]]) -> Iterator[tuple[float, float]]:
    for ours, theirs in pairs:
        if ours is not None and theirs is not None:
            yield abs(ours - theirs), ours


def _distance(metric: NativeMetric) -> tuple[bool, float]:
    largest = metric.largest_difference
    return metric.reproduces is not True, math.inf if largest is None or math.isnan(largest) else largest
