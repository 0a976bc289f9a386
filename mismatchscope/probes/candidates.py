"""What can be changed of the behaviour until it computes as the reference does, the likeliest change first.

Which settings differ is a fact, what each of them can do is prior knowledge (`comparison.known_effects`): it orders
them and decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..collection.capabilities import capabilities_of
from ..comparison.known_effects import effect_rank
from ..engines.registry import engine_class
from ..engines.spec import EngineSpec, resolve_options
from ..errors import ConfigError
from .plan import Question, Setting

_PATH = "path"
_BATCHES = ("batch_size", "order", "padding")
"""Options that `probe batch` is about; they are candidates where they are asked for."""


@dataclass(frozen=True)
class Candidate:
    """One change of the behaviour: an option's value, None for the engine's own choice, or the path."""

    key: str
    value: str | None

    def __str__(self) -> str:
        return f"{self.key}={self.value}" if self.value is not None else f"{self.key} unset"

    def applied(self, spec: EngineSpec) -> EngineSpec:
        others = {key: value for key, value in spec.options.items() if key != self.key}
        return replace(spec, options=others if self.value is None else others | {self.key: self.value})


def candidates(question: Question) -> list[Candidate]:
    """What differs between the two SPECs, or what the question's values name: `key=value`, or a key that differs.

    Of two engines, options have the same meaning in `dtype` alone; of the others that the behaviour was given, its
    own default is tried. Raises `ConfigError` for a value that is neither, and where nothing differs.
    """
    differing = {candidate.key: candidate for candidate in _differing(question)}
    chosen = [_named(word, differing) for word in question.words] if question.words else list(differing.values())
    for candidate in chosen:
        if candidate.key != _PATH:
            resolve_options(candidate.applied(question.behavior))  # an unknown key or value is refused here
    if not chosen:
        raise ConfigError(
            "The two SPECs differ in nothing that could be changed.", hint="--values key=value, once for each"
        )
    return sorted(chosen, key=lambda candidate: _rank(candidate.key))


def variant(question: Question, changes: Sequence[Candidate], label: str | None = None) -> Setting:
    """The behaviour with these changes, by the path that sampling takes unless that is one of them."""
    spec = question.behavior
    decodes = "decode" in capabilities_of(spec).paths and not any(change.key == _PATH for change in changes)
    for change in changes:
        spec = spec if change.key == _PATH else change.applied(spec)
    return Setting(
        label or ", ".join(map(str, changes)) or "as given", "behavior", spec, "decode" if decodes else "prefill"
    )


def _differing(question: Question) -> list[Candidate]:
    behavior, reference = question.behavior, question.reference
    found = []
    if behavior.name == reference.name and behavior.served == reference.served:
        keys = [*behavior.options, *(key for key in reference.options if key not in behavior.options)]
        ours, theirs = (vars(resolve_options(spec)) for spec in (behavior, reference))
        found = [
            Candidate(key, _text(theirs.get(key), reference.options.get(key)))
            for key in keys
            if key not in _BATCHES and ours.get(key) != theirs.get(key)
        ]
    else:
        ours, theirs = ({**spec.options} for spec in (behavior, reference))
        found = [Candidate(key, None) for key in ours if key not in (*_BATCHES, "dtype")]
        if _takes(behavior, "dtype") and (dtype := theirs.get("dtype")) not in (None, ours.get("dtype")):
            found.append(Candidate("dtype", dtype))
    if "decode" in capabilities_of(behavior).paths:
        found.append(Candidate(_PATH, "prefill"))
    return found


def _text(value: Any, given: str | None) -> str | None:
    """An option's value as a SPEC has it: as it was given, else the default; None where the engine chooses."""
    if given is not None or value is None:
        return given
    return str(value).lower() if isinstance(value, bool) else str(value)


def _takes(spec: EngineSpec, key: str) -> bool:
    return key in engine_class(spec.name, served=spec.served).options_type.keys()  # noqa: SIM118 - no mapping


def _named(word: str, differing: dict[str, Candidate]) -> Candidate:
    key, given, value = word.partition("=")
    if given:
        return Candidate(key.strip(), value.strip())
    if key not in differing:
        raise ConfigError(
            f"'{word}' is no setting in which the two SPECs differ: those are {', '.join(differing) or 'none'}.",
            hint="--values key=value",
        )
    return differing[key]


def _rank(key: str) -> float:
    rank = effect_rank(key if key == _PATH else f"effective.{key}")
    return float("inf") if rank is None else rank
