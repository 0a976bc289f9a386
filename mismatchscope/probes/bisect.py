"""Which setting makes the gap: the same tokens under fewer and fewer changes, as long as they close it.

The gap with everything changed that differs is what is left for other causes. Changes close the gap where they come
within a tenth of the way to that, with confidence. The likeliest one is tried alone, then halves of all, the
likelier half first (Junker 2004, "QuickXplain: Preferred Explanations and Relaxations for Over-Constrained
Problems"): of n changes k are found in about 2 k log2(n / k) runs, where more changes never open the gap again. In
the end each is left out once more, and stays out where it is not needed.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

from ..reports.text import estimate
from .attribute import REST
from .candidates import Candidate, candidates, variant
from .plan import Comparison, Findings, Plan, Probe, Question, Search, Setting

if TYPE_CHECKING:
    from ..comparison.pair import Pair
    from ..measures.results import Interval
    from ..reports.pair_fields import ProbeEffect
    from .cells import MeasuredCell

_LEFT = 0.1
"""Share of what all changes together close that a smaller set may leave open."""


def _plan(question: Question) -> Plan:
    """The whole gap, and what is left of it with everything changed."""
    every = candidates(question)
    return _held_to(
        _reference(question),
        [variant(question, []), variant(question, every, "everything changed")],
        more=2 * len(every),
    )


def _search(question: Question, first: Sequence[MeasuredCell]) -> Search:
    from ..comparison.contrast import contrast
    from ..reports.pair_fields import ProbeConclusion

    every = candidates(question)
    whole, least = (each.trusted for each in first)
    if whole is None or least is None:
        why = next(each.cell.reason for each in first if each.trusted is None)
        return Findings([ProbeConclusion("cannot_tell", f"The gap could not be measured at both ends: {why}")])
    told = f"mean TV {_mean(whole)}, with {_listed(every)} {_mean(least)}"
    closed = contrast([whole, least], [1.0, -1.0], confidence=whole.context.confidence)
    if whole.figures.identical:
        return Findings([ProbeConclusion("no_gap", "There is no gap: no recorded log-prob differs in a bit.")])
    if closed.clusters < 2:
        return Findings([ProbeConclusion("cannot_tell", f"One prompt cannot tell what closes the gap: {told}.")])
    least_closed, most_closed = (closed.value if end is None else end for end in (closed.low, closed.high))
    if (least_closed or 0.0) <= 0:
        if (most_closed or 0.0) > _LEFT * (whole.alpha.mean.value or 0.0):
            sentence = f"It cannot be told whether the settings that differ make the gap: {told}."
            return Findings([ProbeConclusion("cannot_tell", sentence)])
        sentence = f"Equal settings on both sides do not close the gap: {told}."
        return Findings([ProbeConclusion("not_among", sentence)])
    allowed = _LEFT * (closed.value or 0.0)

    def closes(pair: Pair | None) -> bool:
        if pair is None:
            return False
        left = contrast([pair, least], [1.0, -1.0], confidence=pair.context.confidence)
        most = left.high if left.high is not None else left.value
        return most is not None and most <= allowed

    reference = _reference(question)
    tried: dict[frozenset[Candidate], Pair | None] = {frozenset(): whole, frozenset(every): least}

    def measured(changes: Sequence[Candidate]) -> Generator[Plan, Sequence[MeasuredCell], Pair | None]:
        key = frozenset(changes)
        if key not in tried:
            found = yield _held_to(reference, [variant(question, changes)])
            tried[key] = found[0].trusted
        return tried[key]

    def needed(
        kept: Sequence[Candidate], parted: Sequence[Candidate], added: bool
    ) -> Generator[Plan, Sequence[MeasuredCell], list[Candidate]]:
        """Those of `parted` that have to be changed with `kept`; `added`: changes that were not tried yet were."""
        if added and closes((yield from measured(kept))):
            return []
        if len(parted) == 1:
            return list(parted)
        middle = (len(parted) + 1) // 2
        likelier, others = parted[:middle], parted[middle:]
        second = yield from needed([*kept, *likelier], others, True)
        first = yield from needed([*kept, *second], likelier, bool(second))
        return [*first, *second]

    chosen = list(every[:1])
    if not closes((yield from measured(chosen))):
        chosen = yield from needed([], every, False)
        if not closes((yield from measured(chosen))):  # a change opens what others close
            chosen = list(every)
        for candidate in list(chosen):
            fewer = [each for each in chosen if each != candidate]
            if fewer and closes((yield from measured(fewer))):
                chosen = fewer
    last = tried[frozenset(chosen)]
    assert last is not None
    sentence = f"Set {_listed(chosen)}: mean TV {_mean(whole)} → {_mean(last)}"
    rest = "" if _mean(last) == _mean(least) else f"; with all that differs changed it is {_mean(least)}"
    taken = contrast([whole, last], [1.0, -1.0], confidence=whole.context.confidence)
    effects = [_effect(_listed(chosen), taken, whole), _effect(REST, last.alpha.mean, whole)]
    return Findings([ProbeConclusion("closed_by", f"{sentence}{rest}.")], effects)


def _effect(change: str, tv: Interval, whole: Pair) -> ProbeEffect:
    from ..reports.pair_fields import ProbeEffect

    size = whole.alpha.mean.value
    return ProbeEffect(change, tv, tv.value / size if tv.value is not None and size else None)


def _held_to(reference: Setting, settings: Sequence[Setting], more: int = 0) -> Plan:
    keys = sorted({key for setting in settings for key in setting.spec.options})
    comparisons = [Comparison(reference, setting) for setting in settings]
    return Plan("what differs between the two SPECs", comparisons, keys=keys, more=more, the_gap=True)


def _reference(question: Question) -> Setting:
    return Setting("the reference", "reference", question.reference, "prefill")


def _mean(pair: Pair) -> str:
    mean = pair.alpha.mean
    return estimate(mean.value, mean.low, mean.high)


def _listed(changes: Sequence[Candidate]) -> str:
    return ", ".join(map(str, changes))


PROBE = Probe(_plan, search=_search, takes_changes=True)
