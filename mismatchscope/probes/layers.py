"""Inside the model: the first place where two sides differ, and which stage makes the difference.

Each side reads the tokens, each sequence by itself, and shows what every stage gives: the norms, attention, the MLP
or the experts, the residual stream, the head. Then the reference reads them once more, each of its stages on what
the behaviour's gave in place of its own. So a stage's own error is told from the error that it was given.

What an engine shows is of its prefill.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..collection.capabilities import capabilities_of
from ..errors import ConfigError
from .layers_conclusions import conclusions
from .looking import ALONE, EAGER_KEYS, changes, visible
from .plan import Comparison, Findings, Look, Plan, Probe, Question, Setting

if TYPE_CHECKING:
    from .cells import MeasuredCell
    from .traces import ProbeTraces

SEQUENCES, TOKENS = 8, 128
"""How many sequences are looked at, and how many tokens of each: a stage's values are as wide as the model."""

_BEHAVIOR, _REFERENCE, _SWAPPED = "the behaviour", "the reference", "the reference on the behaviour's values"


def _plan(question: Question) -> Plan:
    extent = _extent(question)
    behavior, reference = specs = visible(question, shows="what is inside the model")
    own = Look(_BEHAVIOR, behavior, (), extent)
    looks = [own, Look(_REFERENCE, reference, (), extent)]
    if capabilities_of(reference).injection:
        looks.append(Look(_SWAPPED, reference, (), extent, own))
    forward = Setting("reference", "reference", reference, "prefill", ALONE)
    reads = Setting("behaviour prefill", "behavior", behavior, "prefill", ALONE)
    drawn = Setting("behaviour as drawn", "behavior", question.behavior, "rollout", drawn=True)
    sequences, tokens = extent
    factor = f"whose stages compute, seen in at most {sequences:,} sequences of {tokens:,} tokens"
    return Plan(
        factor="; ".join([factor, *changes(question, specs, ("the behaviour", "the reference"))]),
        comparisons=[Comparison(reads, forward), Comparison(drawn, forward)],
        keys=EAGER_KEYS,
        the_gap=True,
        looks=looks,
    )


def _extent(question: Question) -> tuple[int, int]:
    """`--values sequences=16,tokens=512`. Raises `ConfigError`."""
    extent = {"sequences": SEQUENCES, "tokens": TOKENS}
    for word in question.words:
        name, _, text = word.partition("=")
        if name not in extent or not text.isdecimal() or not int(text):
            raise ConfigError(
                f"The probe layers does not know the value '{word}'.", hint="--values sequences=16,tokens=512"
            )
        extent[name] = int(text)
    return extent["sequences"], extent["tokens"]


def _examine(cells: Sequence[MeasuredCell], traces: ProbeTraces) -> Findings:
    """Reduce what was shown, and delete it: it is as large as all that a model computes.

    Raises why an engine showed nothing, and `NotComparableError` where there is nothing in common.
    """
    from ..comparison.layers import ShownBy, internals_of
    from ..records import Evidence

    for look, error in traces.not_shown.items():
        if look.given is None:
            raise error
    shown = {look.label: directory for look, directory in traces.shown.items()}
    places = ShownBy(shown[_BEHAVIOR], shown[_REFERENCE], shown.get(_SWAPPED))
    pair = cells[0].pair
    confidence = 0.95 if pair is None else pair.context.confidence
    found = internals_of(places, traces.source.requests(Evidence("sampled")), confidence=confidence)
    for directory in shown.values():
        shutil.rmtree(directory, ignore_errors=True)
    why = next((error.message for error in traces.not_shown.values()), None)
    if why is None and _SWAPPED not in shown:
        why = "the reference's engine takes no values of another side"
    return Findings(conclusions(found, why), internals=found)


PROBE = Probe(_plan, examine=_examine)
