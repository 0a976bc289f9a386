"""What else is in a batch: a sequence alone, among others, among other others, in another order and layout.

Kernels choose how to split their sums by the shape of a batch, so that a token's log-prob can depend on the number
of rows, on their lengths (padding), and, where a kernel mixes rows, on what they hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..collection.capabilities import capabilities_of
from ..composition import BatchComposition
from ..errors import ConfigError
from ..reports.text import count
from .conclusions import MeasuredCell, by_computation, differing, farthest, gap, measured, nothing_tried
from .plan import Comparison, Plan, Probe, Question, Setting
from .sides import Computation, computations

if TYPE_CHECKING:
    from ..reports.pair_fields import Completions, ProbeCell, ProbeConclusion

_SIZES = (2, 4, 8, 16, 32, 64)
_USUAL = 8
"""Sequences in the batches whose members, order and layout are changed."""

_ALONE = "alone"
_OTHERS, _BY_LENGTH = "other neighbours", "longest first"
_RIGHT = "right-padded"
_LAYOUTS = {"left": "left-padded", "packed": "packed"}


def _plan(question: Question) -> Plan:
    sizes = _sizes(question)
    varied = max((size for size in sizes if size <= _USUAL), default=sizes[0])
    behavior, able = question.behavior, capabilities_of(question.behavior).rollout
    compositions = {_ALONE: BatchComposition(batch_size=1)}
    compositions |= {_batch_of(size): BatchComposition(batch_size=size) for size in sizes}
    compositions[_OTHERS] = BatchComposition(batch_size=varied, shuffle_seed=1)
    greedy = [Setting(label, "behavior", behavior, "rollout", batch) for label, batch in compositions.items()]
    return Plan(
        factor="the other sequences of a batch",
        comparisons=[cell for each in computations(question) for cell in _cells(each, sizes, varied)],
        greedy=[greedy] if able else [],
    )


def _sizes(question: Question) -> list[int]:
    """Rising. Batches cannot hold more sequences than there are."""
    if not all(value.isdecimal() and int(value) > 1 for value in question.words):
        raise ConfigError("The sizes of batches are numbers from 2 on.", hint="--values 2,8,32")
    asked = sorted({int(value) for value in question.words} or _SIZES)
    sizes = [size for size in asked if size <= question.sequences]
    if not sizes or (question.words and sizes != asked):
        raise ConfigError(
            f"There are {question.sequences} sequences, too few for a batch of {asked[len(sizes)]}.",
            hint="more with --limit, --prompts or --samples",
        )
    return sizes


def _cells(computation: Computation, sizes: list[int], varied: int) -> list[Comparison]:
    """Each size against the sequence alone; then what else can change, against batches of one size."""

    def setting(label: str, **composition: Any) -> Setting:
        return Setting(label, *computation, BatchComposition(**composition))

    alone = setting(_ALONE, batch_size=1)
    batches = {size: setting(_batch_of(size), batch_size=size) for size in sizes}
    usual = batches[varied]
    cells = [Comparison(alone, batch) for batch in batches.values()]
    cells += [
        Comparison(usual, setting(_OTHERS, batch_size=varied, shuffle_seed=1)),
        Comparison(usual, setting(_BY_LENGTH, batch_size=varied, order="length")),
    ]
    layouts = capabilities_of(computation.spec).paddings if computation.path == "prefill" else ()
    if "right" in layouts:
        right = setting(_RIGHT, batch_size=varied, padding="right")
        cells += [
            Comparison(right, setting(_LAYOUTS[layout], batch_size=varied, padding=layout))
            for layout in layouts
            if layout != "right"
        ]
    return cells


def _batch_of(size: int) -> str:
    return f"batch of {size}"


def _conclude(cells: Sequence[ProbeCell], completions: Sequence[Completions]) -> list[ProbeConclusion]:
    from ..reports.pair_fields import ProbeConclusion

    found = measured(cells)
    conclusions: list[ProbeConclusion] = []
    for computation, own in by_computation(found).items():
        if varying := differing(own):
            cell, pair = farthest(varying)
            sentence = f"{computation} depends on the batch, by most with {cell.setting} against {cell.against}: "
            conclusions.append(ProbeConclusion("depends_on_batch", f"{sentence}{gap(pair)}."))
            conclusions += _rules(computation, own)
        else:
            sentence = f"{computation}: no bit depends on the batch in {count(len(own), 'comparison')}."
            conclusions.append(ProbeConclusion("batch_invariant", sentence))
    return [*conclusions, *map(_of_completions, completions)] or [nothing_tried()]


def _rules(computation: str, cells: Sequence[MeasuredCell]) -> Iterator[ProbeConclusion]:
    """Which change of the batch matters: each is said where a comparison shows it alone."""
    from ..reports.pair_fields import ProbeConclusion

    same = {(cell.setting, cell.against): pair.identical for cell, pair in cells}
    rows = {setting: identical for (setting, against), identical in same.items() if against == _ALONE}
    if kept := [setting for setting, identical in rows.items() if identical]:
        yield ProbeConclusion(
            "same_as_alone", f"{computation} has the bits of a sequence alone in {_listed(kept)}."
        )
    members = {setting: identical for (setting, _), identical in same.items() if setting in (_OTHERS, _BY_LENGTH)}
    if members and all(members.values()) and not all(rows.values()):
        sentence = "how many sequences a batch has matters, not which or in what order, as far as was tried"
        yield ProbeConclusion("rows", f"{computation}: {sentence}.")
    elif members and not all(members.values()):
        changing = [setting for setting, identical in members.items() if not identical]
        why = "by their tokens, their padding or, in a smaller last batch, their number"
        sentence = f"in batches of one size bits change with {_listed(changing)}: {why}"
        yield ProbeConclusion("members", f"{computation}: {sentence}.")
    layouts = {setting: identical for (setting, against), identical in same.items() if against == _RIGHT}
    if changing := [setting for setting, identical in layouts.items() if not identical]:
        sentence = f"laying the same batches out {_listed(changing)} changes bits"
        yield ProbeConclusion("layout", f"{computation}: {sentence}.")


def _of_completions(completions: Completions) -> ProbeConclusion:
    from ..reports.pair_fields import ProbeConclusion

    of_each = f"{completions.of_each} greedy completions of each of {count(completions.prompts, 'prompt')}"
    if not completions.diverging_prompts:
        return ProbeConclusion("one_completion", f"{of_each}: the same tokens in all of these batches.")
    sentence = (
        f"{of_each}: {count(completions.diverging_prompts, 'prompt')} with more than one, "
        f"up to {completions.most_unique}; the first divergence is at position {completions.first_divergence}."
    )
    return ProbeConclusion("several_completions", sentence)


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


PROBE = Probe(_plan, _conclude)
