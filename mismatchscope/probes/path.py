"""Where the gap arises: three computations of the same tokens, and what lies between each two of them.

The behaviour's engine decodes, the same engine reads what it would have decoded (prefill), the trainer reads it.
From its decode to its prefill an engine changes kernels and keeps its weights and its code; from its prefill to the
trainer's it changes all the rest. Each computation once more, in shuffled batches, is the floor of the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from packaging.version import Version

from ..collection.passes import REPEAT_SHUFFLE_SEED
from ..composition import BatchComposition
from ..engines.spec import EngineSpec
from ..errors import ConfigError
from ..machine import hardware
from ..reports.pair_fields import engine_of
from ..reports.text import estimate
from .conclusions import gap, measured
from .options import changed
from .plan import Comparison, Plan, Probe, Question, Setting

if TYPE_CHECKING:
    from ..measures.results import Interval
    from ..reports.pair_fields import Completions, PairSummary, ProbeCell, ProbeConclusion

_DECODE, _PREFILL, _TRAINER = "decode", "prefill", "trainer"
_IN_ALL, _OF_PATH, _OF_ENGINE = (
    f"{_DECODE} against {_TRAINER}",
    f"{_DECODE} against {_PREFILL}",
    f"{_PREFILL} against {_TRAINER}",
)
_PARTS = (_OF_PATH, _OF_ENGINE)

_NATIVE = "native"
"""The value that has vLLM replay the tokens by itself."""
_REPLAY = "native replay"
_OF_REPLAY = f"{_REPLAY} against {_DECODE}"
_REPLAYS_FROM = "0.32"


def _plan(question: Question) -> Plan:
    if set(question.words) - {_NATIVE}:
        raise ConfigError(f"The probe path has one value to choose, {_NATIVE}.", hint="leave --values out")
    behavior, reference = question.behavior, question.reference
    again = BatchComposition(shuffle_seed=REPEAT_SHUFFLE_SEED)
    decode = Setting(_DECODE, "behavior", behavior, "decode")
    prefill = Setting(_PREFILL, "behavior", behavior, "prefill")
    trainer = Setting(_TRAINER, "reference", reference, "prefill")
    of_decode, of_prefill, of_trainer = (
        Comparison(once, Setting(f"{once.label} again", once.side, once.spec, once.path, again))
        for once in (decode, prefill, trainer)
    )
    in_all = Comparison(trainer, decode, less=(of_decode, of_trainer), along=True)
    of_path = Comparison(prefill, decode, less=(of_decode, of_prefill), along=True)
    of_engine = Comparison(trainer, prefill, less=(of_path, of_prefill, of_trainer), along=True)
    cells = [in_all, of_path, of_engine, of_decode, of_prefill, of_trainer]
    if question.words or _replays(behavior):
        cells.append(
            Comparison(
                decode, replace(decode, label=_REPLAY, spec=changed(behavior, {"enable_trace_replay": "true"}))
            )
        )
    sampler, other = engine_of(str(behavior)), engine_of(str(reference))
    return Plan(
        factor=f"the path, {sampler} decode, {sampler} prefill, {other} prefill as the trainer",
        comparisons=cells,
        the_gap=True,
        keys=("enable_trace_replay",),
    )


def _replays(behavior: EngineSpec) -> bool:
    """Whether it is a vLLM that can replay tokens by itself, as far as its version is named: on a GPU."""
    known = behavior.version is None or Version(behavior.version) >= Version(_REPLAYS_FROM)
    return behavior.name == "vllm" and not behavior.served and known and bool(hardware()["gpus"])


def _conclude(cells: Sequence[ProbeCell], completions: Sequence[Completions]) -> list[ProbeConclusion]:
    return list(_conclusions({f"{cell.setting} against {cell.against}": cell for cell, _ in measured(cells)}))


def _conclusions(cells: dict[str, ProbeCell]) -> Iterator[ProbeConclusion]:
    """`cells` are those that were measured, by what is held against what."""
    from ..reports.pair_fields import ProbeConclusion

    pairs = {name: cell.pair for name, cell in cells.items() if cell.pair is not None}
    if _IN_ALL in pairs:
        yield ProbeConclusion("total", f"In all, {_IN_ALL}: {gap(pairs[_IN_ALL])}.")
    elif _OF_ENGINE in pairs:
        sentence = f"There is no decode to split the gap by. {_OF_ENGINE.capitalize()}: {gap(pairs[_OF_ENGINE])}."
        yield ProbeConclusion("no_decode", sentence)
    else:
        missing = " and ".join(name for name in (_IN_ALL, *_PARTS) if name not in pairs)
        yield ProbeConclusion("incomplete", f"Not known: {missing}.")
    if all(part in pairs for part in _PARTS):
        yield _split(pairs, cells[_OF_ENGINE])
    if _OF_REPLAY in pairs:
        agree = "has the same bits as" if pairs[_OF_REPLAY].identical else "has other bits than"
        sentence = f"vLLM's own replay of the tokens {agree} ours: {gap(pairs[_OF_REPLAY])}."
        yield ProbeConclusion("same_replay" if pairs[_OF_REPLAY].identical else "other_replay", sentence)
    yield from _against_repeats(cells)
    for name in (_IN_ALL, *_PARTS):
        if name in cells:
            yield from _along_response(name, cells[name].growth)


def _split(pairs: dict[str, PairSummary], of_engine: ProbeCell) -> ProbeConclusion:
    """Which part is the larger one, as far as the two can be told apart."""
    from ..reports.pair_fields import ProbeConclusion

    path, engine = (pairs[part].identical for part in _PARTS)
    if path and engine:
        return ProbeConclusion("no_gap", "No recorded bit differs between the three.")
    if path:
        return ProbeConclusion("all_engine", _all_of(_OF_ENGINE, _OF_PATH))
    if engine:
        return ProbeConclusion("all_path", _all_of(_OF_PATH, _OF_ENGINE))
    difference = of_engine.differences[0].tv
    less = f"mean TV of {_OF_ENGINE} less that of {_OF_PATH}"
    value, low, high = difference.value, difference.low, difference.high
    if low is not None and low > 0:
        sentence = f"The larger part is {_OF_ENGINE}: {less} is {estimate(value, low, high)}."
        return ProbeConclusion("engine_larger", sentence)
    if high is not None and high < 0:
        sentence = f"The larger part is {_OF_PATH}: {less} is {estimate(value, low, high)}."
        return ProbeConclusion("path_larger", sentence)
    known = "is not known" if value is None else f"is {estimate(value, low, high)}"
    return ProbeConclusion("undecided", f"Which part is the larger one cannot be told: {less} {known}.")


def _all_of(part: str, other: str) -> str:
    return f"{other.capitalize()}: no recorded bit differs, so that all of the gap that was seen is {part}."


def _against_repeats(cells: dict[str, ProbeCell]) -> Iterator[ProbeConclusion]:
    """What varies when it is done again, and which gaps are larger than that."""
    from ..reports.pair_fields import ProbeConclusion

    repeats = {name: cell for name, cell in cells.items() if name not in (_IN_ALL, *_PARTS, _OF_REPLAY)}
    varying = [name for name, cell in repeats.items() if cell.pair is not None and not cell.pair.identical]
    if not varying:
        if repeats:
            sentence = "What was computed again in shuffled batches has the same bits again."
            yield ProbeConclusion("deterministic", sentence)
        return
    yield ProbeConclusion("noise", f"Not the same bits again in shuffled batches: {'; '.join(varying)}.")
    above: dict[bool, list[str]] = {True: [], False: []}
    for name in (_IN_ALL, *_PARTS):
        if name in cells:
            floors = [each.tv for each in cells[name].differences if each.than != _OF_PATH]
            above[all(_above(floor, 0.0) for floor in floors)].append(name)
    if above[True]:
        sentence = f"Larger than both of its computations show when they are repeated: {'; '.join(above[True])}."
        yield ProbeConclusion("above_repeats", sentence)
    if above[False]:
        yield ProbeConclusion("not_above_repeats", f"Cannot be told from a repeat: {'; '.join(above[False])}.")


def _along_response(name: str, growth: Interval | None) -> Iterator[ProbeConclusion]:
    from ..reports.pair_fields import ProbeConclusion

    if growth is None:
        return
    times = (
        f"mean TV in its later half is {estimate(growth.value, growth.low, growth.high)} times the earlier half's"
    )
    if _above(growth, 1.0):
        yield ProbeConclusion("grows", f"Along the response {name} grows: {times}.")
    elif growth.high is not None and growth.high < 1.0:
        yield ProbeConclusion("shrinks", f"Along the response {name} shrinks: {times}.")


def _above(interval: Interval, level: float) -> bool:
    return interval.low is not None and interval.low > level


PROBE = Probe(_plan, _conclude)
