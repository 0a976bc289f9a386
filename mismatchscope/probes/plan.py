"""What a probe asks: settings under which the same tokens are computed, and which of them are held side by side.

To add a probe: a file with a function that makes a `Plan` and one that says what its cells mean, and one line in
`registry.PROBES`. What it takes to make the traces, to measure and to report is here for all of them.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from ..composition import BatchComposition
from ..engines.spec import EngineSpec, split_outside_brackets
from ..records import Policy, Sampling

if TYPE_CHECKING:
    from ..measures.layer_results import Internals
    from ..measures.routing_results import Routing
    from ..records import SequenceRecord
    from ..reports.pair_fields import (
        Completions,
        PrefixMeasures,
        ProbeCell,
        ProbeConclusion,
        ProbeDesign,
        ProbeEffect,
        ProbeInteraction,
    )
    from ..reports.sampler_fields import SamplerCheck, SamplerStep
    from ..traces.reader import Trace
    from .cells import MeasuredCell
    from .traces import ProbeTraces

Side = Literal["behavior", "reference"]
Path = Literal["rollout", "decode", "prefill"]
Start = tuple[str, int, bool]
"""What is the same of settings that one start of an engine can do: the SPEC, the start's number, and whether other
tokens than those that were drawn are there already."""


class OtherTokens(ABC):
    """Sequences made of those that were drawn, to be computed in their place: other contexts of the same tokens.

    Frozen dataclasses: equal ones make the same.
    """

    @property
    @abstractmethod
    def label(self) -> str:
        """What they are, in a few words that no other ones have."""

    @abstractmethod
    def missing(self, drawn: Trace) -> str | None:
        """Why they cannot be made of this trace; None where they can."""

    @abstractmethod
    def records(self, drawn: Trace) -> Iterator[SequenceRecord]:
        """The sequences in rising order of their ids, each token with what was seen of it when it was drawn
        (`Trace.records`), and each sequence with the id of the prompt it came from. There is one at least."""


@dataclass(frozen=True, eq=False)
class Look:
    """What an engine shows of the inside of its model as it reads the tokens: `stages` as `engines.common.stages`
    names them, of the first `extent` sequences and tokens of each (0: all). `label` says whose it is. With `given`
    each stage reads what that earlier look has shown, in place of what this engine has computed."""

    label: str
    spec: EngineSpec
    stages: tuple[str, ...]
    extent: tuple[int, int] = (0, 0)
    given: Look | None = None


@dataclass(frozen=True, eq=False)
class Replay:
    """Of what another side has shown: the `stages` whose values a forward takes in place of its own."""

    look: Look
    stages: tuple[str, ...]

    def __str__(self) -> str:
        """`expert_ids, expert_weights of sampler`."""
        return f"{', '.join(stage.rpartition('.')[2] for stage in self.stages)} of {self.look.label}"


@dataclass(frozen=True, eq=False)
class Setting:
    """One way to compute the tokens: an engine, the path they are forced through, and what is computed together.
    Along the path "rollout" nothing is forced: it completes the prompts greedily.

    `side` decides what lies between the logits and the policy: all that the sampler does, or a trainer's
    temperature alone. Settings of one SPEC and one `start` share a loaded engine. Settings that ask for the same
    are one run, unless `again` tells them apart. `drawn` is the tokens' own trace: what the behaviour said of them
    as it drew them. `tokens` are other sequences than those that were drawn. A "raw" policy is seen before any of
    what lies between; one with "support" is the same run as without, seen on the ids that the sampler kept. With a
    `replay` the policy that is computed is conditioned on another side's values.
    A setting acts on prompts that are `longer_than` so many tokens, in a prefill on such sequences.
    """

    label: str
    side: Side
    spec: EngineSpec
    path: Path
    composition: BatchComposition = field(default_factory=BatchComposition)
    start: int = 0
    again: int = 0
    drawn: bool = False
    tokens: OtherTokens | None = None
    policy: Policy = "processed"
    replay: Replay | None = None
    longer_than: int = 0

    @property
    def asks(self) -> Hashable:
        """What is the same of settings that are one run."""
        run = (self.path, self.composition, self.start, self.again)
        return (self.side, str(self.spec), *run, self.drawn, self.tokens, self.policy == "raw", self.replay)

    @property
    def described(self) -> str:
        """`prefill, behaviour, one token`: the path, the label, and what other tokens it is of."""
        tokens = [] if self.tokens is None else [self.tokens.label]
        return ", ".join(dict.fromkeys([self.path, self.label, *tokens]))

    def started_with(self, behavior: EngineSpec) -> Start:
        """Other tokens cannot be made, nor lengths looked at, before `behavior` has drawn some, which its first
        start does."""
        first = (str(self.spec), self.start) == (str(behavior), 0)
        return str(self.spec), self.start, first and (self.tokens is not None or self.longer_than > 0)


@dataclass(frozen=True, eq=False)
class Comparison:
    """A cell of the table: what changes from `against` to `setting`.

    From its mean TV that of each of `less`, other comparisons of the plan, is taken, prompt by prompt: a floor, a
    usual value. Its gap is given as a multiple of that of `over`, another one. `along` asks how the gap goes along
    the response.
    With a `third`, the errors of both against it are related: both are held against it in the same plan.
    Where one of the two has other tokens than the other, their responses are the same, and what is before them is
    not.
    """

    against: Setting
    setting: Setting
    less: Sequence[Comparison] = ()
    along: bool = False
    third: Setting | None = None
    over: Comparison | None = None

    @property
    def policies(self) -> tuple[Setting, Setting]:
        """μ and π: the sampler is μ, as in an audit, else what is held against."""
        if (self.setting.side, self.against.side) == ("behavior", "reference"):
            return self.setting, self.against
        return self.against, self.setting


@dataclass(eq=False)
class EngineStart:
    """What one start of an engine is for."""

    spec: EngineSpec
    settings: list[Setting] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Plan:
    """`factor` says in a few words what is changed, `keys` which options of an engine are. Of each group of
    `greedy` rollouts the completions are held against each other. At most `more` settings follow from what is
    found. `looks` are what engines show of themselves, in this order. The cells of a `ranked` plan rise by mean TV.
    Where the plan begins with `the_gap` that it is about, that
    is what a report has all its other figures of; else it is the cell of largest mean TV."""

    factor: str
    comparisons: Sequence[Comparison]
    greedy: Sequence[Sequence[Setting]] = ()
    keys: Sequence[str] = ()
    more: int = 0
    ranked: bool = False
    the_gap: bool = False
    looks: Sequence[Look] = ()

    @property
    def settings(self) -> list[Setting]:
        """Each once, in the order in which they are needed."""
        pairs = [(comparison.against, comparison.setting) for comparison in self.comparisons]
        return list(dict.fromkeys(itertools.chain(*pairs, *self.greedy)))

    def starts(self, behavior: EngineSpec) -> dict[Start, EngineStart]:
        """What each start of an engine is for; the first one draws the tokens, whatever else it does."""
        starts = {(str(behavior), 0, False): EngineStart(behavior)}
        for look in self.looks:
            starts.setdefault((str(look.spec), 0, False), EngineStart(look.spec)).looks.append(look)
        for setting in self.settings:
            if not setting.drawn:
                start = starts.setdefault(setting.started_with(behavior), EngineStart(setting.spec))
                start.settings.append(setting)
        return starts


@dataclass(frozen=True)
class Question:
    """What a person asks of a probe: the two engines, how many sequences there are, the values to try where they
    are not the usual ones, the run's adapter, which the two engines have already, how tokens are drawn, what the
    trainer divides its logits by, where that is not the sampler's temperature, and the model, a path or hub id.
    `changes` are options that are changed together, by the name that they were given."""

    behavior: EngineSpec
    reference: EngineSpec
    sequences: int
    values: tuple[str, ...] = ()
    adapter: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    reference_temperature: float | None = None
    model: str = ""
    changes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def words(self) -> list[str]:
        """The values, where each is a word: those that were given as one text are parted at its commas, but for
        those inside brackets. Raises `SpecError` for a bracket that nothing closes."""
        return [word.strip() for value in self.values for word in split_outside_brackets(value) if word.strip()]


@dataclass(frozen=True)
class Findings:
    """What a probe says in the end: one sentence or more, how much of the gap each change makes, how it adds up
    along a response, what each of the sampler's transforms does, which experts both sides choose, and where they
    come apart inside the model."""

    conclusion: list[ProbeConclusion]
    effects: list[ProbeEffect] = field(default_factory=list)
    lengths: list[PrefixMeasures] = field(default_factory=list)
    transforms: list[SamplerStep] = field(default_factory=list)
    sampler_check: SamplerCheck | None = None
    routing: Routing | None = None
    interactions: list[ProbeInteraction] = field(default_factory=list)
    design: ProbeDesign | None = None
    internals: Internals | None = None


Search = Generator[Plan, "Sequence[MeasuredCell]", Findings]
"""Yields the plans that follow from what was found, is sent the cells of each, and returns what they say."""


@dataclass(frozen=True)
class Probe:
    """`plan` raises `ConfigError` for values that it cannot try. What its cells say is for `conclude`, which is
    given them in the plan's order, for `search`, which is given their pairs too and can ask for more, or for
    `examine`, which is given their pairs and what engines have shown of themselves. `smaller` says what to leave
    out where time is enough for a share of the runs. Few take changes by name."""

    plan: Callable[[Question], Plan]
    conclude: Callable[[Sequence[ProbeCell], Sequence[Completions]], list[ProbeConclusion]] | None = None
    search: Callable[[Question, Sequence[MeasuredCell]], Search] | None = None
    examine: Callable[[Sequence[MeasuredCell], ProbeTraces], Findings] | None = None
    smaller: Callable[[Question, float], str] | None = None
    takes_changes: bool = False
