"""Precision: which dtype is far from which, on the same tokens, and how far is each from float32?

Every two values of a side are held together, each against a third party, the reference in float32, and the two
sides against each other where they have a value in common. What two policies differ by is then told apart into the
error of one and that of the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING

from ..collection.capabilities import declared_by
from ..errors import ConfigError
from ..machine import hardware
from ..reports.text import estimate, number
from .conclusions import (
    MeasuredCell,
    by_computation,
    computation_of,
    differing,
    farthest,
    gap,
    mean_tv,
    measured,
    nothing_tried,
    size_of,
)
from .options import also, changed_keys, has_options, varied
from .plan import Comparison, Plan, Probe, Question, Setting
from .shown_bytes import EXPERTS
from .sides import Computation, computations

if TYPE_CHECKING:
    from ..measures.results import Alpha, Interval, ThirdParty
    from ..reports.pair_fields import Completions, ProbeCell, ProbeConclusion

THIRD = "float32 (third party)"
_FLOAT32 = "float32"
_PLAIN = (_FLOAT32, "bfloat16", "float16")
_KEYS = ("dtype", "lm_head", "router", "kv_cache_dtype", "quantization", "enable_fp32_lm_head")

_INDEPENDENT = (0.8, 1.25)
"""Mean squares that add up to within this factor are said to add in quadrature."""


def _usual(computation: Computation, *, experts: bool) -> Sequence[str]:
    """What the engine has, and can run here: vLLM and SGLang run no fp8 weights on a CPU. Where the model has
    `experts`, their router can be in float32."""
    spec, gpus = computation.spec, bool(hardware()["gpus"])
    if not has_options(spec, {"dtype": ""}):
        return ()
    if spec.name == "transformers":
        router = ["bfloat16+router=float32"] if experts else []
        return (*_PLAIN, "autocast", "bfloat16+lm_head=float32", *router)
    if spec.name == "vllm":
        return (*_PLAIN, "kv_cache_dtype=fp8", *(["quantization=fp8"] if gpus else []))
    if spec.name == "sglang":
        return (*_PLAIN, "bfloat16+enable_fp32_lm_head=true", *(["kv_cache_dtype=fp8_e4m3"] if gpus else []))
    return _PLAIN


def _plan(question: Question) -> Plan:
    able = any(has_options(side.spec, {"dtype": ""}) for side in computations(question))
    if question.values and able:  # the third party is always among them
        question = replace(question, values=(_FLOAT32, *question.values))
    usual = partial(_usual, experts=bool(declared_by(question.model, *EXPERTS)))
    sides = varied(question, usual, key="dtype", name_given=True)
    if not any(len(settings) > 1 for settings in sides):
        raise ConfigError("The engines have no precision to choose.", hint="--values key=value, as in a SPEC")
    float32 = next((each for settings in reversed(sides) for each in settings if each.label == _FLOAT32), None)
    third = None if float32 is None else replace(float32, label=THIRD)
    sides = [[third if third and each is float32 else each for each in settings] for settings in sides]
    return Plan(
        factor="the precision",
        comparisons=[*_between(sides, third), *(cell for settings in sides for cell in matrix(settings, third))],
        keys=tuple(dict.fromkeys((*_KEYS, *(key for settings in sides for key in changed_keys(settings))))),
    )


def matrix(settings: Sequence[Setting], third: Setting | None) -> Iterator[Comparison]:
    """Each of one side's settings against the third party, then every two of them."""
    held = [setting for setting in settings if setting is not third]
    if third is not None:
        yield from (Comparison(third, setting) for setting in held)
    yield from (Comparison(first, second, third=third) for first, second in combinations(held, 2))


def _between(sides: Sequence[Sequence[Setting]], third: Setting | None) -> Iterator[Comparison]:
    """The two sides: as they are given, then where both have the same value. None is the third party, against which
    all are held anyway."""
    if len(sides) < 2:
        return
    behavior, reference = sides
    pairs = [(reference[0], behavior[0])]
    pairs += [(theirs, ours) for ours in behavior for theirs in reference if theirs.label == ours.label]
    for theirs, ours in dict.fromkeys(pairs):
        if third not in (theirs, ours):
            yield Comparison(theirs, ours, third=third)


def _conclude(cells: Sequence[ProbeCell], completions: Sequence[Completions]) -> list[ProbeConclusion]:
    found = measured(cells)
    conclusions: list[ProbeConclusion] = []
    for computation, own in by_computation(found).items():
        conclusions += _of_one_side(computation, own)
    return [*conclusions, *_of_sides(found)] or [nothing_tried()]


def _of_sides(found: Sequence[MeasuredCell]) -> Iterator[ProbeConclusion]:
    """Which side is farther from float32, whether they err alike, and what one precision on both sides leaves."""
    from ..reports.pair_fields import ProbeConclusion

    between = [(cell, pair) for cell, pair in found if _is_across(cell)]
    for cell, _ in between[:1]:
        if cell.errors is not None:
            names = f"{computation_of(cell)} ({cell.setting})", _computation_first(cell.against)
            if names[0] == names[1]:  # two SPECs of one engine that both read
                names = f"{names[0]} of the behaviour", f"{names[1]} of the reference"
            yield ProbeConclusion("farther_from_float32", _which_is_farther(*names, cell.errors))
            yield ProbeConclusion("errors", f"Between the two, {_how_errors_add(cell.errors)}.")
    alike = [(cell.setting, pair) for cell, pair in between if cell.against.startswith(f"{cell.setting}, ")]
    alike += [(_FLOAT32, pair) for cell, pair in found if cell.setting == _FLOAT32 and _is_to_third(cell)]
    if len(alike) > 1:
        gaps = [f"{setting} {mean_tv(pair)}" for setting, pair in sorted(alike, key=lambda each: size_of(each[1]))]
        sentence = f"With the same setting on both sides the mean TV between them is: {'; '.join(gaps)}."
        yield ProbeConclusion("same_precision", sentence)


def _of_one_side(computation: str, own: Sequence[MeasuredCell]) -> Iterator[ProbeConclusion]:
    """How far its settings are from the third party and, where there is none, from each other."""
    from ..reports.pair_fields import ProbeConclusion

    to_third = differing([(cell, pair) for cell, pair in own if _is_to_third(cell) and cell.setting != _FLOAT32])
    inside = [(cell, pair) for cell, pair in own if not _is_across(cell) and not _is_to_third(cell)]
    if to_third:
        cell, pair = farthest(to_third)
        sentence = f"{computation}: farthest from float32 is {cell.setting}, {gap(pair)}"
        yield ProbeConclusion("farthest_from_float32", f"{sentence}{also(to_third, (cell, pair))}.")
        near, nearest = min(to_third, key=lambda entry: size_of(entry[1]))
        if near is not cell:
            sentence = f"{computation}: nearest to float32 is {near.setting}, mean TV {mean_tv(nearest)}"
            yield ProbeConclusion("nearest_to_float32", f"{sentence}{also(to_third, (near, nearest))}.")
        if cell.rounding_floor is not None and pair.alpha.observed_max is not None:
            yield _against_rounding(f"{computation}, {cell.setting}", cell.rounding_floor, pair.alpha)
        yield from _of_additions(computation, [cell for cell, _ in inside])
    elif differing(inside):
        cell, pair = farthest(inside)
        sentence = f"{computation}: farthest apart are {cell.setting} and {cell.against}, {gap(pair)}."
        yield ProbeConclusion("farthest_apart", sentence)
    if same := [f"{cell.setting} and {cell.against}" for cell, pair in own if pair.identical]:
        yield ProbeConclusion("same_bits", f"{computation} has the same bits with {'; '.join(same)}.")


def _of_additions(computation: str, inside: Sequence[ProbeCell]) -> Iterator[ProbeConclusion]:
    """What an option that is added to another takes away of its distance: `bfloat16+lm_head=float32`."""
    from ..reports.pair_fields import ProbeConclusion

    for cell in inside:
        for longer, base, inverted in ((cell.setting, cell.against, False), (cell.against, cell.setting, True)):
            if longer.startswith(f"{base}+") and cell.errors is not None:
                ratio = cell.errors.ratio.inverted() if inverted else cell.errors.ratio
                sentence = f"{computation}: the rms error of {longer} is {_interval(ratio)} of that of {base}"
                known = "" if ratio.excludes(1) else ", which may be chance"
                yield ProbeConclusion("addition", f"{sentence}{known}.")


def _against_rounding(what: str, floor: float, alpha: Alpha) -> ProbeConclusion:
    """The largest TV is known exactly from whole distributions alone, else between two ends."""
    from ..reports.pair_fields import ProbeConclusion

    made = f"rounded logits alone can make a TV of {number(floor)}"
    if alpha.observed_max is not None and alpha.observed_max > floor:
        return ProbeConclusion("beyond_rounded_logits", f"{what}: {made}, so more than the logits is rounded.")
    if alpha.observed_upper is not None and alpha.observed_upper <= floor:
        return ProbeConclusion("within_rounded_logits", f"{what}: {made}; none was larger.")
    sentence = f"{what}: {made}; whether any was larger cannot be told from this evidence."
    return ProbeConclusion("rounded_logits_unknown", sentence)


def _which_is_farther(setting: str, against: str, errors: ThirdParty) -> str:
    farther, nearer, ratio = setting, against, errors.ratio
    if ratio.value is not None and ratio.value < 1:
        farther, nearer, ratio = against, setting, ratio.inverted()
    sizes = f"rms errors of log p {number(errors.rms_setting)} and {number(errors.rms_against)}"
    if ratio.excludes(1):
        return f"{farther} is {_interval(ratio)} times as far from float32 as {nearer}."
    return (
        f"Which of {setting} and {against} is farther from float32 cannot be told: {sizes}, "
        f"ratio {_interval(errors.ratio)}."
    )


def _how_errors_add(errors: ThirdParty) -> str:
    added = errors.quadrature
    figures = f"mean square {_interval(added)} of the sum of both, correlation {_interval(errors.correlation)}"
    if added.low is not None and added.high is not None:
        if _INDEPENDENT[0] <= added.low and added.high <= _INDEPENDENT[1]:
            return f"the errors add in quadrature: {figures}"
        if added.high < 1:
            return f"the errors are partly the same: {figures}"
        if added.low > 1:
            return f"the errors are partly opposed: {figures}"
    return f"whether the errors add in quadrature cannot be told: {figures}"


def _is_to_third(cell: ProbeCell) -> bool:
    return cell.against == THIRD


def _is_across(cell: ProbeCell) -> bool:
    """Whether it is held against the other side, which its label says: labels have no comma of their own."""
    return ", " in cell.against


def _computation_first(label: str) -> str:
    """`transformers prefill (bfloat16)` for `bfloat16, transformers prefill`."""
    setting, _, computation = label.partition(", ")
    return f"{computation} ({setting})"


def _interval(interval: Interval) -> str:
    return estimate(interval.value, interval.low, interval.high)


PROBE = Probe(_plan, _conclude)
