"""The traces of a plan, in a directory that several probes can share: each is named by what was asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..collection.capabilities import check_capabilities
from ..collection.collector import Collector, Events
from ..collection.passes import Pass, scoring
from ..engines.spec import EngineSpec
from ..errors import CapabilityError, ConfigError, DiskFullError, MismatchScopeError
from ..records import Evidence, EvidenceLevel, Policy, Sampling
from ..traces.reader import Trace
from ..traces.store import is_complete, raw_path_of, write_records
from .plan import OtherTokens, Plan, Setting

_KEY_DIGITS = 16
_UNSEEN: dict[tuple[Policy, EvidenceLevel], str] = {
    ("raw", "topk"): "top-k evidence lists the likeliest ids of the policy drawn from, not of the raw one",
    ("support", "sampled"): "sampled tokens do not show which ids the sampler kept",
}


@dataclass(frozen=True, eq=False)
class ProbeTraces:
    """The tokens that were drawn, what was made of them, and what came of each setting: a trace, why there is none,
    or why there is nothing to try it on."""

    source: Trace
    traces: dict[Setting, Trace] = field(default_factory=dict)
    errors: dict[Setting, MismatchScopeError] = field(default_factory=dict)
    left_out: dict[Setting, str] = field(default_factory=dict)
    others: dict[OtherTokens, Trace] = field(default_factory=dict)


class TraceMaker:
    """Makes the traces of one probe.

    `rollout` is how the tokens are drawn; where its trace goes is decided here. `store` has the traces, `logs` what
    each engine said. A trainer divides its logits by `reference_temperature`, by default the sampler's.
    """

    def __init__(
        self,
        collector: Collector,
        behavior: EngineSpec,
        rollout: Pass,
        *,
        reference_temperature: float | None,
        store: Path,
        logs: Path,
        on_event: Events,
    ) -> None:
        self._collector, self._behavior = collector, behavior
        self._reference_temperature = reference_temperature
        self._store, self._logs, self._on_event = store, logs, on_event
        self._labels: dict[str, str] = {}
        self._others: dict[OtherTokens, Trace] = {}
        key = collector.request_keys(behavior, [rollout])[rollout][:_KEY_DIGITS]
        self._source = replace(rollout, trace=self._place(key, "the tokens"))

    def make(self, plan: Plan) -> ProbeTraces:
        """Make what is missing; an engine is loaded once for all that it can do in one go.

        A setting that an engine refuses, or dies of, costs none of the others. Raises what drawing the tokens does,
        and `DiskFullError`.
        """
        starts: dict[tuple[str, int, bool], list[Setting]] = {(str(self._behavior), 0, False): []}
        for setting in plan.settings:
            if not setting.drawn:
                starts.setdefault(setting.started_with(self._behavior), []).append(setting)
        passes: dict[Setting, Pass] = {}
        errors: dict[Setting, MismatchScopeError] = {}
        left_out: dict[Setting, str] = {}
        for number, asked in enumerate(starts.values(), start=1):
            missing = self._make_others(asked) | self._unseen(asked)
            settings = [setting for setting in asked if setting not in missing]
            spec = asked[0].spec if asked else self._behavior
            made, failed = self._make_in_one_start(spec, settings, self._logs / f"start-{number}.log")
            passes |= made
            errors |= failed
            left_out |= missing
        source = self._collector.trace(self._source.trace)
        traces = {setting: self._collector.trace(passes[setting].trace) for setting in passes}
        found = ProbeTraces(source, traces, errors, left_out, dict(self._others))
        self._add_drawn(plan, found)
        return found

    def _unseen(self, settings: Iterable[Setting]) -> dict[Setting, str]:
        """Those whose policy this evidence does not show, and why."""
        seen = ((setting, _UNSEEN.get((setting.policy, self._source.evidence.level))) for setting in settings)
        return {setting: why for setting, why in seen if why is not None}

    def _add_drawn(self, plan: Plan, found: ProbeTraces) -> None:
        """What the behaviour said as it drew the tokens: of the policy that it drew from, or of its raw one."""
        raw, drawn = raw_path_of(found.source.path), [setting for setting in plan.settings if setting.drawn]
        unseen = self._unseen(drawn)
        found.left_out.update(unseen)
        for setting in [setting for setting in drawn if setting not in unseen]:
            if setting.policy != "raw":
                found.traces[setting] = found.source
            elif is_complete(raw):
                found.traces[setting] = self._collector.trace(raw)
            else:
                found.left_out[setting] = "the engine does not show the raw policy of what it draws from"

    def _make_others(self, settings: Iterable[Setting]) -> dict[Setting, str]:
        """Make the other tokens of these settings, where they are not there; why not, where there can be none."""
        missing: dict[Setting, str] = {}
        for setting in settings:
            if setting.tokens is None or setting.tokens in self._others:
                continue
            drawn = self._collector.trace(self._source.trace)
            if (why := setting.tokens.missing(drawn)) is not None:
                missing[setting] = why
            else:
                self._others[setting.tokens] = self._make_other(setting.tokens, drawn)
        return missing

    def _make_other(self, tokens: OtherTokens, drawn: Trace) -> Trace:
        """A trace that is named by what was drawn and what is made of it; it has no whole distributions."""
        content = hashlib.sha256(f"{drawn.sha256} {tokens!r}".encode()).hexdigest()
        place = self._place(content[:_KEY_DIGITS], tokens.label)
        if not is_complete(place):
            evidence = drawn.evidence if drawn.evidence.level == "topk" else Evidence("sampled")
            notes = [f"The tokens were drawn in other contexts than these: {tokens.label}."]
            facts = {"evidence": evidence, "parent": drawn.sha256, "notes": notes}
            write_records(place, drawn.manifest.model_copy(update=facts), tokens.records(drawn))
        return self._collector.trace(place)

    def _make_in_one_start(
        self, spec: EngineSpec, settings: Sequence[Setting], log: Path
    ) -> tuple[dict[Setting, Pass], dict[Setting, MismatchScopeError]]:
        """The passes of what was made, and why the rest was not: after a failure each is tried by itself."""
        draws = [self._source] if str(spec) == str(self._behavior) else []
        refused = self._refused(settings)
        settings = [setting for setting in settings if setting not in refused]
        loaded = False

        def note(event: dict[str, Any]) -> None:
            nonlocal loaded
            loaded = loaded or event["event"] == "ready"
            self._on_event(self._for_people(event, spec))

        def collect(passes: Sequence[Pass]) -> None:
            self._collector.collect(spec, passes, log_path=log, on_event=note)

        try:
            passes = self._passes(spec, draws, settings)
            collect([*draws, *dict.fromkeys(passes.values())])
        except DiskFullError:
            raise
        except MismatchScopeError as error:
            if draws and not is_complete(self._source.trace):
                collect(draws)
            if not loaded and not isinstance(error, CapabilityError | ConfigError):
                return {}, refused | dict.fromkeys(settings, error)  # the engine's failure, not a setting's
        else:
            return passes, refused
        errors = refused
        for setting, pass_ in passes.items():
            try:
                collect([*draws, pass_])
            except DiskFullError:
                raise
            except MismatchScopeError as error:
                errors[setting] = error
        return {setting: pass_ for setting, pass_ in passes.items() if setting not in errors}, errors

    def _refused(self, settings: Sequence[Setting]) -> dict[Setting, MismatchScopeError]:
        """What an engine says that it cannot do, which needs no start to find out."""
        errors: dict[Setting, MismatchScopeError] = {}
        for setting in settings:
            rollout = setting.path == "rollout"
            evidence = Evidence("sampled") if rollout else self._source.evidence
            try:
                path = None if rollout else setting.path
                check_capabilities(setting.spec, evidence=evidence, path=path, rollout=rollout)
            except CapabilityError as error:
                errors[setting] = error
        return errors

    def _passes(self, spec: EngineSpec, draws: Sequence[Pass], settings: Sequence[Setting]) -> dict[Setting, Pass]:
        """The pass of each setting. Raises `SpecError` for options that the engine does not know."""
        unplaced = {
            self._pass(setting, self._store / f"{number}"): setting for number, setting in enumerate(settings)
        }
        keys = self._collector.request_keys(spec, [*draws, *unplaced])
        return {
            setting: replace(pass_, trace=self._place(_key_of(keys[pass_], setting), _label_of(setting)))
            for pass_, setting in unplaced.items()
        }

    def _pass(self, setting: Setting, trace: Path) -> Pass:
        drawn = self._source.sampling
        if setting.path == "rollout":
            greedy = Sampling(seed=drawn.seed, max_new_tokens=drawn.max_new_tokens, temperature=0.0)
            sampled = Evidence("sampled")
            return Pass(trace, "behavior", sampled, "processed", greedy, composition=setting.composition)
        temperature = self._reference_temperature if setting.side == "reference" else None
        return Pass(
            trace,
            setting.side,
            self._source.evidence,
            "raw" if setting.policy == "raw" else "processed",
            scoring(drawn, setting.side, temperature),
            source=self._source.trace if setting.tokens is None else self._others[setting.tokens].path,
            path=setting.path,
            composition=setting.composition,
        )

    def _place(self, key: str, label: str) -> Path:
        """Where the trace of this content is."""
        place = self._store / key
        self._labels.setdefault(place.name, label)
        return place

    def _for_people(self, event: Mapping[str, Any], spec: EngineSpec) -> dict[str, Any]:
        """The event of a worker, traces called by what they are of."""
        names = {key: self._labels.get(event[key], event[key]) for key in ("name", "task") if key in event}
        return dict(event) | names | {"side": spec.name}


def _key_of(request: str, setting: Setting) -> str:
    numbers = f"-{setting.start}-{setting.again}" if setting.start or setting.again else ""
    return f"{request[:_KEY_DIGITS]}{numbers}"


def _label_of(setting: Setting) -> str:
    return f"{setting.spec.name} {setting.described}"
