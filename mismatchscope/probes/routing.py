"""In a mixture of experts: do both sides choose the same ones, and how much of the gap is that they do not?

Each side reads the tokens, each sequence by itself, and shows the router's logits, the experts in slot order and
their weights. Then the trainer reads them with the sampler's experts in place of its own choice, and with the
sampler's weights of them too. What a replay takes away of the gap is routing's part of it. It is another policy
than the one that trains: its cells are routing-conditioned.

What an engine shows is of its prefill. So the gap from the sampler's prefill is split; that from the tokens as they
were drawn stands beside it, and the experts that decoding chose are not seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..collection.capabilities import capabilities_of
from ..engines.common.identity import read_json
from ..engines.common.stages import EXPERT_IDS, EXPERT_WEIGHTS, ROUTING
from ..errors import ConfigError, ModelError, NotComparableError
from .looking import ALONE, EAGER_KEYS, changes, visible
from .plan import Comparison, Findings, Look, Plan, Probe, Question, Replay, Setting
from .routing_conclusions import AS_DRAWN, BOTH, IDS, OWN, READS, conclusions

if TYPE_CHECKING:
    from ..measures.routing_results import Routing
    from .cells import MeasuredCell
    from .traces import ProbeTraces

_SAMPLER, _TRAINER = "the sampler", "the trainer"
_EXPERTS = re.compile(r"(num|n)(_\w+)?_experts")
_SHARED = "shared"


def _plan(question: Question) -> Plan:
    if question.words:
        raise ConfigError("The probe routing has no values to choose.", hint="leave --values out")
    check_routes(question.model)
    behavior, reference = specs = visible(question, shows="which experts it chooses")
    patterns = tuple(f"layers.*.{kind}" for kind in ROUTING)
    sampler, trainer = Look(_SAMPLER, behavior, patterns), Look(_TRAINER, reference, patterns)
    reads = Setting(READS, "behavior", behavior, "prefill", ALONE)
    drawn = Setting(AS_DRAWN, "behavior", question.behavior, "rollout", drawn=True)
    forwards = [Setting(OWN, "reference", reference, "prefill", ALONE)]
    if capabilities_of(reference).injection:
        ids, weights = f"layers.*.{EXPERT_IDS}", f"layers.*.{EXPERT_WEIGHTS}"
        for label, stages in ((IDS, (ids,)), (BOTH, (ids, weights))):
            replay = Replay(sampler, stages)
            forwards.append(Setting(label, "reference", reference, "prefill", ALONE, replay=replay))
    comparisons: list[Comparison] = []
    for side in (reads, drawn):
        before: list[Comparison] = []
        for forward in forwards:
            over = before[0] if before else None
            before.append(Comparison(side, forward, less=tuple(before), over=over))
        comparisons += before
    factor = "whose experts the trainer's forward takes, routing-conditioned but for its own"
    return Plan(
        factor="; ".join([factor, *changes(question, specs, ("sampler", "trainer"))]),
        comparisons=comparisons,
        keys=EAGER_KEYS,
        the_gap=True,
        looks=[sampler, trainer],
    )


def check_routes(model: str) -> None:
    """Raise `ConfigError` where the model's configuration has no experts to choose among; a model whose
    configuration is not at hand is left to the engines."""
    try:
        config = read_json(Path(model) / "config.json")
    except ModelError:
        return
    if not any(number > 1 for number in _numbers_of_experts(config)):
        raise ConfigError(
            f"The model is dense: config.json in {model} names no experts, so nothing is routed.",
            hint="probe a mixture of experts, for example --model demo:moe",
        )


def _numbers_of_experts(config: dict[str, Any]) -> Iterator[int]:
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _numbers_of_experts(value)
        elif _EXPERTS.fullmatch(key) and _SHARED not in key and isinstance(value, int):
            yield value


def _examine(cells: Sequence[MeasuredCell], traces: ProbeTraces) -> Findings:
    routing, why = _routing(cells, traces)
    return Findings(conclusions([each.cell for each in cells], routing, why), routing=routing)


def _routing(cells: Sequence[MeasuredCell], traces: ProbeTraces) -> tuple[Routing | None, str | None]:
    """What the two sides have shown, or why it cannot be held together. Raises `ConfigError` for a dense model."""
    from ..comparison.routing import routing_of
    from ..records import Evidence

    shown = {look.label: directory for look, directory in traces.shown.items()}
    unseen = {look.label: error.message for look, error in traces.not_shown.items()}
    if unseen:
        return None, "; ".join(f"{label}: {message}" for label, message in unseen.items())
    pair = cells[0].pair
    if pair is None:
        return None, cells[0].cell.reason
    behavior = next(look.spec for look in traces.shown if look.label == _SAMPLER)
    requests = traces.source.requests(Evidence("sampled"))
    try:
        places = shown[_SAMPLER], shown[_TRAINER]
        return routing_of(pair, places, requests, behavior=f"{behavior.name} prefill"), None
    except NotComparableError as error:
        return None, error.message


PROBE = Probe(_plan, examine=_examine)
