"""Which pass each setting of a probe is, and where its trace lies: named by all that it asks for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..collection.collector import Collector
from ..collection.passes import Beside, Given, Inside, Pass, scoring
from ..engines.spec import EngineSpec
from ..errors import MismatchScopeError
from ..records import Evidence, Sampling
from ..traces.reader import Trace
from ..traces.store import is_complete
from .plan import Comparison, EngineStart, Look, OtherTokens, Setting

_KEY_DIGITS = 16


@dataclass(eq=False)
class Places:
    """`rollout` is how the tokens are drawn, `source` the same in its place in the `store`. `labels` says of each
    place what lies there, `others` has the other tokens that are there, `inside` what engines are asked to show."""

    collector: Collector
    behavior: EngineSpec
    rollout: Pass
    store: Path
    reference_temperature: float | None
    labels: dict[str, str] = field(default_factory=dict)
    others: dict[OtherTokens, Trace] = field(default_factory=dict)
    inside: dict[Look, Inside] = field(default_factory=dict)

    def __post_init__(self) -> None:
        key = self.collector.request_keys(self.behavior, [self.rollout])[self.rollout][:_KEY_DIGITS]
        self.source = replace(self.rollout, trace=self.place(key, "the tokens"))

    def place(self, key: str, label: str) -> Path:
        """Where the trace of this content is."""
        place = self.store / key
        self.labels.setdefault(place.name, label)
        return place

    def place_of(self, tokens: OtherTokens, drawn: Trace) -> Path:
        content = hashlib.sha256(f"{drawn.sha256} {tokens!r}".encode()).hexdigest()
        return self.place(content[:_KEY_DIGITS], tokens.label)

    def looking(self, look: Look, draws: Sequence[Pass]) -> Inside:
        """What a look asks for, in a place that is named by all that it depends on."""
        drawn = self.source
        asked = Pass(
            drawn.trace.with_name("inside"), "reference", Evidence("sampled"), "raw", drawn.sampling, drawn.trace
        )
        key = self.collector.request_keys(look.spec, [*draws, asked])[asked]
        inputs = None if look.given is None else self.inside[look.given].directory
        asked_of = f"{key} {look.stages} {look.extent} {inputs and inputs.name}"
        place = self.place(hashlib.sha256(asked_of.encode()).hexdigest()[:_KEY_DIGITS], f"inside {look.label}")
        return Inside(place, drawn.trace, look.stages, look.extent, inputs)

    def passes(self, spec: EngineSpec, draws: Sequence[Pass], settings: Sequence[Setting]) -> dict[Setting, Pass]:
        """The pass of each setting. Raises `SpecError` for options that the engine does not know."""
        unplaced = {
            self._pass(setting, self.store / f"{number}"): setting for number, setting in enumerate(settings)
        }
        keys = self.collector.request_keys(spec, [*draws, *unplaced])
        return {
            setting: replace(pass_, trace=self.place(_key_of(keys[pass_], setting), _label_of(setting)))
            for pass_, setting in unplaced.items()
        }

    def _pass(self, setting: Setting, trace: Path) -> Pass:
        drawn = self.source.sampling
        if setting.path == "rollout":
            greedy = Sampling(seed=drawn.seed, max_new_tokens=drawn.max_new_tokens, temperature=0.0)
            sampled = Evidence("sampled")
            return Pass(trace, "behavior", sampled, "processed", greedy, composition=setting.composition)
        temperature = self.reference_temperature if setting.side == "reference" else None
        given = None
        if setting.replay is not None:
            directory = self.inside[setting.replay.look].directory
            given = Given(directory, setting.replay.stages, directory.name)
        return Pass(
            trace,
            setting.side,
            self.source.evidence,
            "raw" if setting.policy == "raw" else "processed",
            scoring(drawn, setting.side, temperature),
            source=self.source.trace if setting.tokens is None else self.others[setting.tokens].path,
            path=setting.path,
            composition=setting.composition,
            given=given,
        )

    def side_by_side(self, comparison: Comparison) -> Pass:
        """The pass of π, with μ beside it."""
        mu, pi = comparison.policies
        asked = self._pass(mu, self.store / "mu")
        beside = Beside(str(mu.spec), asked.role, asked.sampling)
        pass_ = replace(self._pass(pi, self.store / "pi"), evidence=Evidence("sampled"), beside=beside)
        key = self.collector.request_keys(pi.spec, [pass_])[pass_][:_KEY_DIGITS]
        return replace(pass_, trace=self.place(key, f"{_label_of(pi)} beside {mu.described}"))

    def has_side_by_side(self, comparison: Comparison) -> bool:
        """Whether that has been made already."""
        if not is_complete(self.source.trace):
            return False
        try:
            return is_complete(self.side_by_side(comparison).trace)
        except (MismatchScopeError, KeyError):  # of tokens that are not there yet
            return False

    def there(self, start: EngineStart) -> set[Setting]:
        """The settings whose traces are there already."""
        if not is_complete(self.source.trace):
            return set()
        drawn = self.collector.trace(self.source.trace)
        for tokens in {setting.tokens for setting in start.settings} - {None, *self.others}:
            if tokens is not None and is_complete(place := self.place_of(tokens, drawn)):
                self.others[tokens] = self.collector.trace(place)
        draws = [self.source] if str(start.spec) == str(self.behavior) else []
        known = [setting for setting in start.settings if setting.tokens is None or setting.tokens in self.others]
        try:
            self.inside |= {look: self.looking(look, draws) for look in start.looks}
            known = [each for each in known if each.replay is None or each.replay.look in self.inside]
            passes = self.passes(start.spec, draws, known)
        except MismatchScopeError:  # which is for the run to say
            return set()
        return {setting for setting, pass_ in passes.items() if is_complete(pass_.trace)}


def _key_of(request: str, setting: Setting) -> str:
    numbers = f"-{setting.start}-{setting.again}" if setting.start or setting.again else ""
    return f"{request[:_KEY_DIGITS]}{numbers}"


def _label_of(setting: Setting) -> str:
    return f"{setting.spec.name} {setting.described}"
