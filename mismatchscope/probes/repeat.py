"""The same thing twice: in one process, in a new one, with another number of threads. What is left is the floor of
every other probe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..engines.registry import engine_class
from ..errors import ConfigError
from .conclusions import by_computation, differing, farthest, gap, measured, nothing_tried
from .plan import Comparison, Plan, Probe, Question, Setting
from .sides import Computation, computations

if TYPE_CHECKING:
    from ..reports.pair_fields import Completions, ProbeCell, ProbeConclusion

_THREADS = ("1", "2")


def _plan(question: Question) -> Plan:
    return Plan(
        factor="nothing but the run",
        comparisons=[cell for computation in computations(question) for cell in _cells(computation, question)],
        keys=("threads",),
    )


def _cells(computation: Computation, question: Question) -> list[Comparison]:
    side, spec, path = computation
    first = Setting("once", side, spec, path)
    again = [Setting("same process", side, spec, path, again=1)]
    if not spec.served:  # a server is not ours to start again
        again.append(Setting("new process", side, spec, path, start=1))
    if "threads" in engine_class(spec.name, served=spec.served).options_type.keys():  # noqa: SIM118 - no mapping
        for threads in question.words or _THREADS:
            if not threads.isdecimal() or int(threads) < 1:
                raise ConfigError(f"'{threads}' is no number of threads.", hint="--values 1,2,4")
            other = replace(spec, options=spec.options | {"threads": threads})
            again.append(Setting(f"{threads} thread{'s' * (threads != '1')}", side, other, path))
    return [Comparison(first, setting) for setting in again]


def _conclude(cells: Sequence[ProbeCell], completions: Sequence[Completions]) -> list[ProbeConclusion]:
    from ..reports.pair_fields import ProbeConclusion

    found = measured(cells)
    varying = differing(found)
    if not found:
        return [nothing_tried()]
    if not varying:
        return [ProbeConclusion("identical", "Bit-identical in every repeat that was measured.")]
    cell, pair = farthest(varying)
    names = {id(cell): name for name, own in by_computation(found).items() for cell, _ in own}
    sentence = f"Not the same bits again, by most {names[id(cell)]} with {cell.setting}: {gap(pair)}."
    conclusions = [ProbeConclusion("varies", sentence)]
    if same := [f"{names[id(cell)]}, {cell.setting}" for cell, pair in found if pair.identical]:
        conclusions.append(ProbeConclusion("identical_in_part", f"The same bits again: {'; '.join(same)}."))
    return conclusions


PROBE = Probe(_plan, _conclude)
