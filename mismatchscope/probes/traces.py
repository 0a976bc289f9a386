"""The traces of a plan, in a directory that several probes can share: each is named by what was asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..collection.capabilities import capabilities_of, check_capabilities
from ..collection.collector import Collector, Events
from ..collection.passes import Pass
from ..engines.spec import EngineSpec
from ..errors import CapabilityError, ConfigError, DiskFullError, MismatchScopeError
from ..records import Evidence, EvidenceLevel, Policy
from ..traces.reader import Trace
from ..traces.store import beside_path_of, is_complete, raw_path_of, write_records
from .places import Places
from .plan import Comparison, EngineStart, Look, OtherTokens, Plan, Setting, Start
from .run_times import Measured, RunTimes, TimeEstimate
from .too_short import too_short

_UNSEEN: dict[tuple[Policy, EvidenceLevel], str] = {
    ("raw", "topk"): "top-k evidence lists the likeliest ids of the policy drawn from, not of the raw one",
    ("support", "sampled"): "sampled tokens do not show which ids the sampler kept",
}


@dataclass(frozen=True, eq=False)
class ProbeTraces:
    """The tokens that were drawn, what was made of them, and what came of each setting: a trace, why there is none,
    or why there is nothing to try it on. `shown` has a directory of files for each look, or `not_shown` why not.
    `side_by_side` has μ and π of each comparison that one process made, `not_side_by_side` why one could not."""

    source: Trace
    traces: dict[Setting, Trace] = field(default_factory=dict)
    errors: dict[Setting, MismatchScopeError] = field(default_factory=dict)
    left_out: dict[Setting, str] = field(default_factory=dict)
    others: dict[OtherTokens, Trace] = field(default_factory=dict)
    shown: dict[Look, Path] = field(default_factory=dict)
    not_shown: dict[Look, MismatchScopeError] = field(default_factory=dict)
    side_by_side: dict[Comparison, tuple[Trace, Trace]] = field(default_factory=dict)
    not_side_by_side: dict[Comparison, MismatchScopeError] = field(default_factory=dict)

    def policies(self, comparison: Comparison) -> tuple[Trace, Trace]:
        """μ and π."""
        if comparison in self.side_by_side:
            return self.side_by_side[comparison]
        mu, pi = comparison.policies
        return self.traces[mu], self.traces[pi]


class TraceMaker:
    """Makes the traces of one probe.

    `rollout` is how the tokens are drawn; where its trace goes is decided here. `store` has the traces, `logs` what
    each engine said. A trainer divides its logits by `reference_temperature`, by default the sampler's.
    `before_start` is called before each start of an engine, and may raise.
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
        before_start: Callable[[TraceMaker, Plan, Sequence[Comparison]], None] | None = None,
    ) -> None:
        self._collector, self._behavior = collector, behavior
        self._times, self._before_start = RunTimes.of(store), before_start
        self._logs, self._on_event = logs, on_event
        self._not_shown: dict[Look, MismatchScopeError] = {}
        self._places = Places(collector, behavior, rollout, store, reference_temperature)
        self._source = self._places.source

    def make(self, plan: Plan, beside: Sequence[Comparison] = ()) -> ProbeTraces:
        """Make what is missing; an engine is loaded once for all that it can do in one go. `beside` is what will be
        made side by side then, and takes time, too.

        A setting that an engine refuses, or dies of, costs none of the others. Raises what drawing the tokens does,
        and `DiskFullError`.
        """
        starts = plan.starts(self._behavior)
        passes: dict[Setting, Pass] = {}
        errors: dict[Setting, MismatchScopeError] = {}
        left_out: dict[Setting, str] = {}
        for number, start in enumerate(starts.values(), start=1):
            if self._before_start is not None:
                self._before_start(self, plan, beside)
            missing = self._make_others(start.settings) | self._unseen(start.settings)
            missing |= too_short(start.settings, lambda: self._collector.trace(self._source.trace))
            start.settings = [setting for setting in start.settings if setting not in missing]
            made, failed = self._make_in_one_start(start, self._logs / f"start-{number}.log")
            passes |= made
            errors |= failed
            left_out |= missing
        source = self._collector.trace(self._source.trace)
        traces = {setting: self._collector.trace(passes[setting].trace) for setting in passes}
        shown = {look: self._places.inside[look].directory for look in plan.looks if look not in self._not_shown}
        others, not_shown = dict(self._places.others), dict(self._not_shown)
        found = ProbeTraces(source, traces, errors, left_out, others, shown, not_shown)
        self._add_drawn(plan, found)
        return found

    def make_side_by_side(self, comparison: Comparison, found: ProbeTraces, log: Path) -> None:
        """Add μ and π of a comparison that fits one process, or that there is nothing to try it on. Raises what its
        run does."""
        if missing := self._make_others(comparison.policies):
            found.left_out.update(missing)
            return
        found.others.update(self._places.others)
        pass_, spec = self._places.side_by_side(comparison), comparison.policies[1].spec

        def note(event: dict[str, Any]) -> None:
            self._on_event(self._for_people(event, spec))

        began, new = time.monotonic(), not is_complete(pass_.trace)
        self._collector.collect(spec, [pass_], log_path=log, on_event=note)
        if new:
            tokens = found.source.manifest.counts.tokens
            self._times.add(Measured(str(spec), "beside", time.monotonic() - began, tokens))
        mu, pi = (self._collector.trace(path) for path in (beside_path_of(pass_.trace), pass_.trace))
        found.side_by_side[comparison] = mu, pi

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

    def estimate(self, plan: Plan, beside: Sequence[Comparison] = ()) -> TimeEstimate:
        """How long it takes to make what is missing of a plan, and of what is made side by side. Starts and writes
        nothing."""
        drawn = is_complete(self._source.trace)
        if drawn:
            tokens = self._collector.trace(self._source.trace).manifest.counts.tokens
        else:
            sequences = len(self._collector.prompts) * self._collector.samples
            tokens = sequences * self._source.sampling.max_new_tokens
        missing: dict[Start, list[Setting]] = {}
        for key, start in plan.starts(self._behavior).items():
            there = self._places.there(start) | set(self._unseen(start.settings))
            left = [setting for setting in start.settings if setting not in there]
            if left or not (drawn or missing):  # the first start draws
                missing[key] = left
        pairs = [each.policies for each in beside if not self._places.has_side_by_side(each)]
        return self._times.estimate(missing, self._behavior, drawn=drawn, tokens=tokens, beside=pairs)

    def _make_others(self, settings: Iterable[Setting]) -> dict[Setting, str]:
        """Make the other tokens of these settings, where they are not there; why not, where there can be none."""
        missing: dict[Setting, str] = {}
        for setting in settings:
            if setting.tokens is None or setting.tokens in self._places.others:
                continue
            drawn = self._collector.trace(self._source.trace)
            if (why := setting.tokens.missing(drawn)) is not None:
                missing[setting] = why
            else:
                self._places.others[setting.tokens] = self._make_other(setting.tokens, drawn)
        return missing

    def _make_other(self, tokens: OtherTokens, drawn: Trace) -> Trace:
        """A trace that is named by what was drawn and what is made of it; it has no whole distributions."""
        place = self._places.place_of(tokens, drawn)
        if not is_complete(place):
            evidence = drawn.evidence if drawn.evidence.level == "topk" else Evidence("sampled")
            notes = [f"The tokens were drawn in other contexts than these: {tokens.label}."]
            facts = {"evidence": evidence, "parent": drawn.sha256, "notes": notes}
            write_records(place, drawn.manifest.model_copy(update=facts), tokens.records(drawn))
        return self._collector.trace(place)

    def _make_in_one_start(
        self, start: EngineStart, log: Path
    ) -> tuple[dict[Setting, Pass], dict[Setting, MismatchScopeError]]:
        """The passes of what was made, and why the rest was not: after a failure each is tried by itself."""
        spec, looks = start.spec, start.looks
        draws = [self._source] if str(spec) == str(self._behavior) else []
        self._not_shown |= {look: error for look in looks if (error := self._cannot_show(look)) is not None}
        looks = [look for look in looks if look not in self._not_shown]
        refused = self._refused(start.settings)
        settings = [setting for setting in start.settings if setting not in refused]
        loaded = False

        def note(event: dict[str, Any]) -> None:
            nonlocal loaded
            loaded = loaded or event["event"] == "ready"
            self._on_event(self._for_people(event, spec))

        def collect(passes: Sequence[Pass], looks: Sequence[Look] = ()) -> None:
            inside = [self._places.inside[look] for look in looks]
            with self._times.watch(spec, passes) as watched:
                self._collector.collect(
                    spec, passes, inside=inside, log_path=log, on_event=lambda event: note(watched(event))
                )

        try:
            for look in looks:
                self._places.inside[look] = self._places.looking(look, draws)
            passes = self._places.passes(spec, draws, settings)
            collect([*draws, *dict.fromkeys(passes.values())], looks)
        except DiskFullError:
            raise
        except MismatchScopeError as error:
            if draws and not is_complete(self._source.trace):
                collect(draws)
            if not loaded and not isinstance(error, CapabilityError | ConfigError):
                self._not_shown |= dict.fromkeys(looks, error)
                return {}, refused | dict.fromkeys(settings, error)  # the engine's failure, not a setting's
        else:
            return passes, refused
        for look in looks:
            try:
                collect(draws, [look])
            except DiskFullError:
                raise
            except MismatchScopeError as error:
                self._not_shown[look] = error
        errors = refused
        for setting, pass_ in passes.items():
            if setting.replay is not None and setting.replay.look in self._not_shown:
                errors[setting] = self._not_shown[setting.replay.look]
                continue
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
            replay = setting.replay
            if replay is not None and not capabilities_of(setting.spec).injection:
                errors[setting] = CapabilityError(
                    f"The engine {setting.spec.name} takes no values of another side."
                )
            elif replay is not None and replay.look in self._not_shown:
                errors[setting] = self._not_shown[replay.look]
        return errors

    def _cannot_show(self, look: Look) -> MismatchScopeError | None:
        able = capabilities_of(look.spec)
        if not able.internals:
            return CapabilityError(f"The engine {look.spec.name} does not show what is inside the model.")
        if look.given is not None and not able.injection:
            return CapabilityError(f"The engine {look.spec.name} takes no values of another side.")
        return None if look.given is None else self._not_shown.get(look.given)

    def _for_people(self, event: Mapping[str, Any], spec: EngineSpec) -> dict[str, Any]:
        """The event of a worker, traces called by what they are of."""
        names = {key: self._places.labels.get(event[key], event[key]) for key in ("name", "task") if key in event}
        return dict(event) | names | {"side": spec.name}
