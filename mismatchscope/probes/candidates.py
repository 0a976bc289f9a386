"""What can be changed of the behaviour until it computes as the reference does, the likeliest change first.

Which settings differ is a fact, what each of them can do is prior knowledge (`comparison.known_effects`): it orders
them and decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..collection.capabilities import capabilities_of
from ..comparison.known_effects import effect_rank
from ..engines.registry import engine_class
from ..engines.spec import EngineSpec, resolve_options
from ..errors import ConfigError
from .options import parse_value
from .plan import Question, Setting

_PATH, _VERSION = "path", "version"
_NO_OPTIONS = {_PATH: "path", _VERSION: "engine_version"}
"""What can be changed beside the options of an engine, by its key in a report's provenance."""
_SHARED = ("dtype", "adapter")
"""Options that mean the same to every engine that has them."""
_BATCHES = ("batch_size", "order", "padding")
"""Options that `probe batch` is about; they are candidates where they are asked for."""


@dataclass(frozen=True)
class Candidate:
    """One change of the behaviour: values of options, None for the engine's own choice; the path, or the engine's
    version. `name` is what a person called it."""

    options: tuple[tuple[str, str | None], ...]
    name: str | None = None

    def __str__(self) -> str:
        return self.name or "+".join(
            f"{key}={text}" if text is not None else f"{key} unset" for key, text in self.options
        )

    @property
    def rank(self) -> float:
        """Rises as what it can do to log-probs falls."""
        ranks = [effect_rank(_NO_OPTIONS.get(key, f"effective.{key}")) for key, _ in self.options]
        return min((rank for rank in ranks if rank is not None), default=float("inf"))

    @property
    def is_of_path(self) -> bool:
        return any(key == _PATH for key, _ in self.options)

    def applied(self, spec: EngineSpec) -> EngineSpec:
        for key, text in self.options:
            if key == _VERSION:
                spec = replace(spec, version=text, python=None)
            elif key != _PATH:
                others = {name: given for name, given in spec.options.items() if name != key}
                spec = replace(spec, options=others if text is None else others | {key: text})
        return spec


def candidates(question: Question) -> list[Candidate]:
    """What differs between the two SPECs, or what the question names: `key=value`, several joined by plus signs, a
    key that differs, or changes by name.

    Of two engines, options have the same meaning in a few; of the others that the behaviour was given, its own
    default is tried. Raises `ConfigError` for a value that is none of these, for a setting in two changes, and
    where nothing differs.
    """
    differing = {candidate.options[0][0]: candidate for candidate in _differing(question)}
    chosen = [_named(word, differing) for word in question.words]
    chosen += [
        Candidate(tuple(options.items()), None if options.keys() == {name} else name)
        for name, options in question.changes.items()
    ]
    chosen = chosen or list(differing.values())
    for candidate in chosen:
        _check(candidate, question)
    if not chosen:
        raise ConfigError(
            "The two SPECs differ in nothing that could be changed.", hint="--values key=value, once for each"
        )
    _check_apart(chosen)
    return sorted(chosen, key=lambda candidate: candidate.rank)


def variant(question: Question, changes: Sequence[Candidate], label: str | None = None) -> Setting:
    """The behaviour with these changes, by the path that sampling takes unless that is one of them."""
    spec = question.behavior
    decodes = "decode" in capabilities_of(spec).paths and not any(change.is_of_path for change in changes)
    for change in changes:
        spec = change.applied(spec)
    label = label or ", ".join(map(str, changes)) or "as given"
    return Setting(label, "behavior", spec, "decode" if decodes else "prefill")


def _differing(question: Question) -> Iterator[Candidate]:
    behavior, reference = question.behavior, question.reference
    if (behavior.name, behavior.served) == (reference.name, reference.served):
        if (behavior.version, behavior.python) != (reference.version, reference.python) and not reference.python:
            yield Candidate(((_VERSION, reference.version),))
        keys = [*behavior.options, *(key for key in reference.options if key not in behavior.options)]
        ours, theirs = (vars(resolve_options(spec)) for spec in (behavior, reference))
        for key in keys:
            if key not in _BATCHES and ours.get(key) != theirs.get(key):
                yield Candidate(((key, _text(theirs.get(key), reference.options.get(key))),))
    else:
        yield from _of_two_engines(behavior, reference.options)
    if "decode" in capabilities_of(behavior).paths:
        yield Candidate(((_PATH, "prefill"),))


def _of_two_engines(behavior: EngineSpec, theirs: Mapping[str, str]) -> Iterator[Candidate]:
    ours = behavior.options
    for key in ours:
        if key not in (*_BATCHES, *_SHARED):
            yield Candidate(((key, None),))
    for key in _SHARED:
        if _takes(behavior, key) and theirs.get(key) not in (None, ours.get(key)):
            yield Candidate(((key, theirs[key]),))


def _text(value: Any, given: str | None) -> str | None:
    """An option's value as a SPEC has it: as it was given, else the default; None where the engine chooses."""
    if given is not None or value is None:
        return given
    return str(value).lower() if isinstance(value, bool) else str(value)


def _takes(spec: EngineSpec, key: str) -> bool:
    return key in engine_class(spec.name, served=spec.served).options_type.keys()  # noqa: SIM118 - no mapping


def _named(word: str, differing: Mapping[str, Candidate]) -> Candidate:
    if "=" in word:
        return Candidate(tuple(parse_value(word).items()))
    if word not in differing:
        raise ConfigError(
            f"'{word}' is no setting in which the two SPECs differ: those are {', '.join(differing) or 'none'}.",
            hint="--values key=value",
        )
    return differing[word]


def _check(candidate: Candidate, question: Question) -> None:
    """An unknown key or value is refused before anything runs."""
    values = dict(candidate.options)
    if values.get(_PATH, "prefill") != "prefill":
        raise ConfigError("The path that is not taken by sampling is prefill.", hint="path=prefill")
    if _VERSION in values and question.behavior.served:
        raise ConfigError("A server has the version that it has.", hint="leave version out")
    resolve_options(candidate.applied(question.behavior))


def _check_apart(chosen: Sequence[Candidate]) -> None:
    """Two changes of one setting have no meaning together, and two of one name cannot be told apart."""
    seen: dict[str, Candidate] = {}
    for candidate in chosen:
        for key in (str(candidate), *(key for key, _ in candidate.options)):
            if seen.setdefault(key, candidate) is not candidate:
                raise ConfigError(
                    f"'{seen[key]}' and '{candidate}' both change {key}.", hint="a setting is in one change alone"
                )
