"""What else is in a batch: a sequence alone, among others, among other others, in another order and layout.

Kernels choose how to split their sums by the shape of a batch, so that a token's log-prob can depend on the number
of rows, on their lengths (padding), and, where a kernel mixes rows, on what they hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..collection.capabilities import capabilities_of
from ..composition import BatchComposition
from ..engines.spec import EngineSpec
from ..errors import ConfigError
from ..reports.text import count
from .conclusions import MeasuredCell, by_computation, differing, farthest, gap, measured, nothing_tried
from .options import changed
from .plan import Comparison, Plan, Probe, Question, Setting
from .prefix_cache import CACHE, from_cache, of_cache
from .sides import Computation, computations

if TYPE_CHECKING:
    from ..reports.pair_fields import Completions, ProbeCell, ProbeConclusion

_SIZES = (2, 4, 8, 16, 32, 64)
_USUAL = 8
_CHUNKS = (16,)

_CHUNK = "chunk"
_HINT = "--values 2,8,32,chunk=64,cache"

_CHUNKED = {
    "vllm": {"enable_chunked_prefill": "true", "max_num_batched_tokens": "{}", "max_num_seqs": "1"},
    "sglang": {"chunked_prefill_size": "{}"},
}
"""The options that have an engine read the prompt of a sequence that is alone in chunks of so many tokens."""

_ALONE = "alone"
_OTHERS, _BY_LENGTH = "other neighbours", "longest first"
_RIGHT = "right-padded"
_LAYOUTS = {"left": "left-padded", "packed": "packed"}


@dataclass(frozen=True)
class _Tried:
    """What `--values` says: sizes of batches, of the chunks in which prompts are read, and the prefix cache."""

    sizes: list[int]
    chunks: list[int]
    cache: bool

    @property
    def varied(self) -> int:
        """Sequences in the batches whose members, order and layout are changed."""
        return max((size for size in self.sizes if size <= _USUAL), default=self.sizes[0])


def _plan(question: Question) -> Plan:
    tried = _values(question)
    sides = computations(question)
    others = [cell for side in sides for cell in _in_chunks(side, tried.chunks)]
    others += [cell for side in sides if tried.cache for cell in from_cache(side)]
    if not tried.sizes and not others:
        raise ConfigError(
            "There is nothing to try: a batch needs two sequences, and no engine here can be told in which chunks "
            "to read prompts, or what its prefix cache has.",
            hint=_HINT,
        )
    able = tried.sizes and capabilities_of(question.behavior).rollout
    sized = [cell for side in sides for cell in _cells(side, tried)] if tried.sizes else []
    return Plan(
        factor="what is computed together",
        comparisons=[*sized, *others],
        greedy=[_greedy(question.behavior, tried)] if able else [],
        keys=tuple(dict.fromkeys(key for cell in others for key in cell.setting.spec.options)),
    )


def _values(question: Question) -> _Tried:
    """The sizes rise. Batches cannot hold more sequences than there are."""
    words = question.words
    sizes = {int(word) for word in words if word.isdecimal() and int(word) > 1}
    chunks = {int(match[1]) for word in words if (match := re.fullmatch(rf"{_CHUNK}=([1-9]\d*)", word))}
    if len(words) != len(sizes) + len(chunks) + words.count(CACHE):
        raise ConfigError(
            f"The sizes of batches are numbers from 2 on, each once; those of chunks are {_CHUNK}=TOKENS, and "
            f"{CACHE} is the prefix cache.",
            hint=_HINT,
        )
    if not words:
        return _Tried([size for size in _SIZES if size <= question.sequences], list(_CHUNKS), True)
    if sizes and (largest := max(sizes)) > question.sequences:
        raise ConfigError(
            f"There are {question.sequences} sequences, too few for a batch of {largest}.",
            hint="more with --limit, --prompts or --samples",
        )
    return _Tried(sorted(sizes), sorted(chunks), CACHE in words)


def _greedy(behavior: EngineSpec, tried: _Tried) -> list[Setting]:
    """Greedy completions, in the same batches."""
    compositions = {_ALONE: BatchComposition(batch_size=1)}
    compositions |= {_batch_of(size): BatchComposition(batch_size=size) for size in tried.sizes}
    compositions[_OTHERS] = BatchComposition(batch_size=tried.varied, shuffle_seed=1)
    return [Setting(label, "behavior", behavior, "rollout", batch) for label, batch in compositions.items()]


def _cells(computation: Computation, tried: _Tried) -> list[Comparison]:
    """Each size against the sequence alone; then what else can change, against batches of one size."""

    def setting(label: str, **composition: Any) -> Setting:
        return Setting(label, *computation, BatchComposition(**composition))

    alone, varied = setting(_ALONE, batch_size=1), tried.varied
    batches = {size: setting(_batch_of(size), batch_size=size) for size in tried.sizes}
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


def _in_chunks(computation: Computation, sizes: Sequence[int]) -> list[Comparison]:
    """A sequence alone whose prompt is read some tokens at a time, where the engine can be told so."""
    side, spec, path = computation
    if spec.name not in _CHUNKED or spec.served:
        return []
    alone = BatchComposition(batch_size=1)
    whole = Setting(_ALONE, side, spec, path, alone)
    return [
        Comparison(whole, Setting(f"chunks of {size}", side, changed(spec, options), path, alone, longer_than=size))
        for size in sizes
        for options in [{key: value.format(size) for key, value in _CHUNKED[spec.name].items()}]
    ]


def _batch_of(size: int | str) -> str:
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
    rows = {setting: identical for (setting, _), identical in same.items() if setting.startswith(_batch_of(""))}
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
    yield from _of_prompts(computation, same)


def _of_prompts(computation: str, same: Mapping[tuple[str, str], bool]) -> Iterator[ProbeConclusion]:
    """Whether it matters how a prompt gets into the cache that the response is computed from."""
    from ..reports.pair_fields import ProbeConclusion

    chunked = {setting: identical for (setting, _), identical in same.items() if setting.startswith("chunks of ")}
    for identical, moved in ((False, "changes bits"), (True, "changes no bit")):
        if sizes := [setting for setting, found in chunked.items() if found == identical]:
            sentence = f"{computation}: reading what is before the response in {_listed(sizes)} tokens {moved}."
            yield ProbeConclusion("same_in_chunks" if identical else "chunks", sentence)
    yield from of_cache(computation, same)


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
