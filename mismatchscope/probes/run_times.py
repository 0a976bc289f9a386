"""How long engines took here, kept beside the traces, and from that how long other runs will take.

`times.jsonl`, a line each: a start of an engine (all of it but its tasks: loading, closing, packing), and a task
with the tokens that it made or scored. Measuring what they made is not among them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..collection.passes import Pass
from ..collection.run_files import TIMES
from ..composition import BatchComposition
from ..engines.spec import EngineSpec
from ..reports.pair_fields import engine_of
from ..reports.text import count, duration
from .plan import Path as TokenPath
from .plan import Setting, Start

Event = dict[str, Any]
Work = TokenPath | Literal["start", "beside"]


@dataclass(frozen=True)
class Measured:
    """`seconds` of one piece of work, a task of `tokens` response tokens or a start; "beside" is both, of two
    models in one process."""

    spec: str
    work: Work
    seconds: float
    tokens: int = 0
    batches: str = ""


@dataclass(frozen=True)
class TimeEstimate:
    """`seconds` of all that is known. `alike` are SPECs that have not run here and are taken to be as fast as
    others of their engine, `unknown` those of engines that have not."""

    starts: int
    runs: int
    seconds: float
    alike: Sequence[str] = ()
    unknown: Sequence[str] = ()
    at_most: bool = False
    """Whether responses are taken to be as long as they may be."""

    @property
    def sentence(self) -> str:
        if not self.runs:
            return "all that is to be run is there already"
        if self.unknown and not self.seconds:
            return f"how long it takes is not known: of {_listed(self.unknown)} nothing has run here yet"
        bound = "at most " * (self.at_most and not self.unknown) or "at least " * bool(self.unknown)
        taken = f"it takes {bound}about {duration(self.seconds)}, as runs took here before"
        if self.alike:
            taken += f"; {_listed(self.alike)} as others of the same engine did"
        return taken + (f"; of {_listed(self.unknown)} nothing has run here yet" if self.unknown else "")


@dataclass
class RunTimes:
    """What was measured in a directory of traces; a line that cannot be read is passed over."""

    file: Path
    measured: list[Measured] = field(default_factory=list)

    @classmethod
    def of(cls, store: Path) -> RunTimes:
        times = cls(store / TIMES)
        with suppress(OSError, UnicodeDecodeError):
            for line in times.file.read_text(encoding="utf-8").splitlines():
                with suppress(ValueError, TypeError):
                    times.measured.append(Measured(**json.loads(line)))
        return times

    def add(self, measured: Measured) -> None:
        """Note it. Times that cannot be written down lose an estimate and no result."""
        self.measured.append(measured)
        with suppress(OSError), self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(measured)) + "\n")

    @contextmanager
    def watch(self, spec: EngineSpec, passes: Sequence[Pass]) -> Iterator[Callable[[Event], Event]]:
        """Note how long a start of an engine takes, and each of its passes: the events of its worker go through
        what this gives. What fails is not noted."""
        began, tasks = time.monotonic(), 0.0
        by_name = {pass_.trace.name: pass_ for pass_ in passes}
        started = False

        def watched(event: Event) -> Event:
            nonlocal tasks, started
            started = started or event["event"] == "ready"
            if event["event"] == "task_done" and (pass_ := by_name.get(event["task"])) is not None:
                tasks += event["seconds"]
                work: Work = "rollout" if pass_.source is None else pass_.path
                batches = batches_of(pass_.composition)
                self.add(Measured(str(spec), work, event["seconds"], event["tokens"], batches))
            return event

        yield watched
        if started:
            self.add(Measured(str(spec), "start", time.monotonic() - began - tasks))

    def seconds(self, spec: str, work: Work, tokens: int = 0, batches: str = "") -> tuple[float, bool] | None:
        """How long it will take, and whether this SPEC itself has done such work; None where its engine has not."""
        same = [each for each in self.measured if each.work == work and (each.tokens or not tokens)]
        own = [each for each in same if each.spec == spec]
        chosen = [each for each in own if each.batches == batches] or own
        chosen = chosen or [each for each in same if engine_of(each.spec) == engine_of(spec)]
        if not chosen:
            return None
        took = sum(each.seconds for each in chosen)
        per = sum(each.tokens for each in chosen) / tokens if tokens else len(chosen)
        return took / per, bool(own)

    def estimate(
        self,
        missing: Mapping[Start, Sequence[Setting]],
        behavior: EngineSpec,
        *,
        drawn: bool,
        tokens: int,
        beside: Sequence[tuple[Setting, Setting]] = (),
    ) -> TimeEstimate:
        """Of the settings that each start is missing, and of two at a time `beside` each other. Where the tokens
        are not `drawn`, the first start draws them, and there are so many at most."""
        needed: list[tuple[str, Work, int, str]] = []
        for (spec, number, then), settings in missing.items():
            needed.append((spec, "start", 0, ""))
            if not drawn and (spec, number, then) == (str(behavior), 0, False):
                needed.append((spec, "rollout", tokens, batches_of(BatchComposition())))
            once = {setting.asks: setting for setting in settings}.values()
            needed += [(spec, each.path, tokens, batches_of(each.composition)) for each in once]
        runs = sum(work != "start" for _, work, *_ in needed) + len(beside)
        for pair in beside:
            needed += self._beside(pair, tokens)
        found = {(spec, work, batches): self.seconds(spec, work, n, batches) for spec, work, n, batches in needed}
        seconds = [found[spec, work, batches] for spec, work, _, batches in needed]
        known = [each for each in seconds if each is not None]
        unknown = {spec: None for (spec, *_), each in found.items() if each is None}
        alike = {spec: None for (spec, *_), each in found.items() if each is not None and not each[1]}
        return TimeEstimate(
            starts=len(missing) + len(beside),
            runs=runs,
            seconds=sum(each for each, _ in known),
            unknown=list(unknown),
            alike=[spec for spec in alike if spec not in unknown],
            at_most=not drawn,
        )

    def _beside(self, pair: tuple[Setting, Setting], tokens: int) -> Iterator[tuple[str, Work, int, str]]:
        """One piece of work where its like has been done, else what each of the two takes by itself."""
        last = str(pair[1].spec)
        if self.seconds(last, "beside", tokens) is not None:
            yield last, "beside", tokens, ""
            return
        for setting in pair:
            yield str(setting.spec), "start", 0, ""
            yield str(setting.spec), setting.path, tokens, batches_of(setting.composition)


def batches_of(composition: BatchComposition) -> str:
    """What is the same of runs that are as fast."""
    return f"{composition.batch_size or ''} {composition.padding or ''}".strip()


def _listed(specs: Sequence[str]) -> str:
    return specs[0] if len(specs) == 1 else f"{specs[0]} and {count(len(specs) - 1, 'other SPEC')}"
