"""An engine's options changed, one value at a time: what the probes of precision and of kernels have in common.

A value is what a SPEC could say, options joined by plus signs: `attn=eager`, `bfloat16+lm_head=float32`. It changes
the SPEC of a side and leaves the rest of it as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..collection.capabilities import capabilities_of
from ..engines.registry import engine_class
from ..engines.spec import EngineSpec, resolve_options, split_outside_brackets
from ..errors import ConfigError, SpecError
from .conclusions import MeasuredCell
from .plan import Question, Setting
from .sides import Computation, computations

if TYPE_CHECKING:
    from ..measures.results import Interval

GIVEN = "as given"
"""The label of a SPEC to which nothing was done."""

Usual = Callable[[Computation], Sequence[str]]
"""The values to try with a computation where nobody says which."""


def parse_value(value: str, key: str | None = None) -> dict[str, str]:
    """A value as options of a SPEC; a word alone is a value of `key`. Raises `ConfigError`, and `SpecError` for a
    bracket that nothing closes."""
    options: dict[str, str] = {}
    for part in split_outside_brackets(value, "+"):
        name, equals, text = part.partition("=")
        if not equals and options:  # a plus sign of the value's own, as in 2.13.0+cpu
            options[list(options)[-1]] += f"+{part}"
            continue
        if not equals and key is None:
            raise ConfigError(f"'{value}' is no key=value of an engine SPEC.", hint="--values attn=eager")
        if not equals:
            name, text = str(key), part
        options[name.strip()] = text.strip()
    return options


def changed(spec: EngineSpec, options: dict[str, str]) -> EngineSpec:
    """The SPEC with these options; as it is where it says the same already, in so many words or by default."""
    other = replace(spec, options=spec.options | options)
    try:
        return spec if resolve_options(other) == resolve_options(spec) else other
    except SpecError:  # which is for the run of the setting to say
        return other


def has_options(spec: EngineSpec, options: Iterable[str]) -> bool:
    """Whether the engine has all of these keys by name."""
    return set(options) <= set(engine_class(spec.name, served=spec.served).options_type.keys())


def varied(
    question: Question, usual: Usual, *, key: str | None = None, name_given: bool = False
) -> list[list[Setting]]:
    """The settings of each computation: the SPEC as given first, then every value that changes it.

    The values that are asked for go to the engines that have such options, else to those that take them, as vLLM
    and SGLang do all that their own arguments say; what none takes goes to all of them, for each to say why. One
    with which only one of the sides has its path, as FSDP2 does not decode, goes to that side. With `name_given`
    the SPEC as given is called by a value that it has already. A word alone is a value of `key`. Raises
    `ConfigError` for a value that cannot be read.
    """
    sides = computations(question)
    asked = {value: parse_value(value, key) for value in question.words}
    takers = {value: _takers(options, sides) for value, options in asked.items()}
    elsewhere = {
        value
        for value, options in asked.items()
        if any(_has_path(side, changed(side.spec, options)) for side in sides if has_options(side.spec, options))
    }
    found = []
    for side in sides:
        values = {value: options for value, options in asked.items() if not takers[value] or side in takers[value]}
        if not asked:
            values = {value: parse_value(value, key) for value in usual(side)}
        specs = {value: changed(side.spec, options) for value, options in values.items()}
        specs = {value: spec for value, spec in specs.items() if _has_path(side, spec) or value not in elsewhere}
        own = [value for value, spec in specs.items() if spec is side.spec]
        settings = [Setting(own[0] if name_given and own else GIVEN, *side)]
        settings += [
            Setting(value, side.side, spec, side.path) for value, spec in specs.items() if value not in own
        ]
        found.append(settings)
    return found


def _takers(options: dict[str, str], sides: Sequence[Computation]) -> list[Computation]:
    """The sides whose engines have all of these options by name, else those that do not refuse one."""
    return [side for side in sides if has_options(side.spec, options)] or [
        side for side in sides if _reads(replace(side.spec, options=side.spec.options | options))
    ]


def _reads(spec: EngineSpec) -> bool:
    try:
        resolve_options(spec)
    except SpecError:
        return False
    return True


def _has_path(side: Computation, spec: EngineSpec) -> bool:
    return side.path in capabilities_of(spec).paths


def changed_keys(settings: Sequence[Setting]) -> Iterator[str]:
    """The options in which settings differ from the first one."""
    given = settings[0].spec.options
    for setting in settings:
        yield from (key for key, text in setting.spec.options.items() if given.get(key) != text)


def also(cells: Sequence[MeasuredCell], chosen: MeasuredCell) -> str:
    """`; bfloat16 may be as well`: the other cells whose intervals of mean TV meet that of the chosen one."""
    mean = chosen[1].alpha.mean
    settings = [cell.setting for cell, pair in cells if cell is not chosen[0] and _meet(mean, pair.alpha.mean)]
    return f"; {', '.join(settings)} may be as well" if settings else ""


def _meet(one: Interval, other: Interval) -> bool:
    """Whether two intervals have a value in common, as far as their ends are known."""
    return all(
        low is None or high is None or low <= high for low, high in ((one.low, other.high), (other.low, one.high))
    )
