"""How the gap adds up along a response: as a random walk of its tokens' errors, or as a bias that they share.

The same responses at several lengths: of their first 4, 8, 16 … tokens, the total variation of the two policies as
distributions of such beginnings, and the spread of log ρ. Measured on the tokens as the sampler drew them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import ConfigError
from ..reports.logs.origins import spread_of_lengths
from ..reports.text import count, number, setting
from .conclusions import gap
from .plan import Comparison, Findings, Plan, Probe, Question, Search, Setting

if TYPE_CHECKING:
    from ..reports.pair_fields import PrefixMeasures, ProbeConclusion
    from .cells import MeasuredCell

_TOLERANCES = (0.1, 0.5)


def _plan(question: Question) -> Plan:
    _tolerances(question)
    trainer = Setting("the reference", "reference", question.reference, "prefill")
    drawn = Setting("as drawn", "behavior", question.behavior, "rollout", drawn=True)
    return Plan("the length of a response", [Comparison(trainer, drawn)], the_gap=True)


def _tolerances(question: Question) -> list[float]:
    try:
        asked = sorted({float(word) for word in question.words} or _TOLERANCES)
    except ValueError:
        asked = []
    if not asked or not all(0 < value < 1 for value in asked):
        raise ConfigError("A TV of whole responses to look for lies between 0 and 1.", hint="--values 0.1,0.5")
    return asked


def _search(question: Question, cells: Sequence[MeasuredCell]) -> Search:
    from ..comparison.prefixes import FIRST, PrefixSums
    from ..reports.pair_fields import ProbeConclusion

    yield from ()  # nothing more is to be run
    cell, pair = cells[0].cell, cells[0].trusted
    if pair is None:
        return Findings([ProbeConclusion("cannot_tell", f"The gap could not be measured: {cell.reason}")])
    if not pair.context.on_policy:
        sentence = "the tokens are not drawn from the policy that is measured, so beginnings have no TV"
        return Findings([ProbeConclusion("cannot_tell", f"Cannot be told: {sentence}.")])
    sums, confidence = PrefixSums.of(pair), pair.context.confidence
    lengths, scaling = sums.rows(confidence), sums.scaling(confidence)
    if not lengths or scaling is None:
        sentence = f"No response has {FIRST} tokens, so nothing adds up: more with --max-new-tokens."
        return Findings([ProbeConclusion("cannot_tell", sentence)])
    conclusion = [
        ProbeConclusion(scaling.code, spread_of_lengths(scaling)),
        *(_reached(lengths, tolerance) for tolerance in _tolerances(question)),
        ProbeConclusion("token_gap", f"A token at a time: {gap(pair.summary)}."),
    ]
    return Findings(conclusion, lengths=lengths)


def _reached(lengths: Sequence[PrefixMeasures], tolerance: float) -> ProbeConclusion:
    """From which length on the beginnings of responses are farther apart than this, as far as intervals tell."""
    from ..reports.pair_fields import ProbeConclusion

    what = f"A TV of {setting(tolerance)} between beginnings of responses is"
    above = [row.tokens for row in lengths if row.tv.low is not None and row.tv.low > tolerance]
    below = [row.tokens for row in lengths if row.tv.high is not None and row.tv.high < tolerance]
    if above:
        since = f"after more than {below[-1]} and " if below and below[-1] < above[0] else ""
        return ProbeConclusion("reached", f"{what} reached {since}by {count(above[0], 'token')}.")
    last = lengths[-1]
    if below and below[-1] == last.tokens:
        sentence = f"{what} not reached in {count(last.tokens, 'token')}, the longest that were seen"
        return ProbeConclusion("not_reached", f"{sentence}: {number(last.tv.value)} there.")
    return ProbeConclusion("reach_not_told", f"{what} neither shown to be reached in these lengths nor not to be.")


PROBE = Probe(_plan, search=_search)
