"""How much of the gap each setting makes: combinations of the settings that differ, on the same tokens.

Where all combinations are run, a setting's share is what it takes away, averaged over all orders in which the
settings can be changed (Shapley 1953, "A Value for n-Person Games"): the shares and what is left with everything
changed add up to the whole gap, whatever the settings do together. Of a fraction of the combinations (`factorial`)
it is the average over those, the same but for what three or more settings do together. Where the order matters, no
share is the setting's own, and that is said.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ..reports.text import count, estimate, share
from .candidates import Candidate, candidates, variant
from .factorial import Factorial
from .plan import Comparison, Findings, Plan, Probe, Question, Search, Setting

if TYPE_CHECKING:
    from ..comparison.pair import Pair
    from ..measures.results import Interval
    from ..reports.pair_fields import ProbeConclusion, ProbeDesign, ProbeEffect, ProbeInteraction
    from .cells import MeasuredCell

_TOGETHER = 0.1
"""Share of the whole gap above which what settings do together is worth a sentence."""

REST = "rest"
_MORE = "three or more together"
_ROMAN = {4: "IV", 6: "VI", 7: "VII"}

Subset = frozenset[Candidate]


def _plan(question: Question) -> Plan:
    design = Factorial.of(candidates(question))
    reference = Setting("the reference", "reference", question.reference, "prefill")
    *subsets, last = design.combinations()
    settings = [*(variant(question, subset) for subset in subsets), variant(question, last, "everything changed")]
    keys = sorted({key for setting in settings for key in setting.spec.options})
    which = "in every combination" if design.is_full else f"in {len(settings)} combinations"
    return Plan(
        f"what differs between the two SPECs, {which}",
        [Comparison(reference, setting) for setting in settings],
        keys=keys,
        the_gap=True,
    )


def _search(question: Question, cells: Sequence[MeasuredCell]) -> Search:
    yield from ()  # every combination is in the first plan
    return _findings(Factorial.of(candidates(question)), [each.trusted for each in cells])


def _smaller(question: Question, affordable: float) -> str:
    """Which changes to leave out, the least likely ones, so that no more than this share of the runs is left."""
    every = candidates(question)
    runs = len(Factorial.of(every).combinations())
    for kept in range(len(every) - 1, 0, -1):
        left = len(Factorial.of(every[:kept]).combinations())
        if left <= affordable * runs:
            dropped = ", ".join(map(str, every[kept:]))
            return f"leave out {dropped}: the other {count(kept, 'setting')} have {count(left, 'combination')}"
    return "probe bisect, which needs fewer runs"


def _findings(design: Factorial[Candidate], pairs: Sequence[Pair | None]) -> Findings:
    from ..comparison.contrast import contrast
    from ..reports.pair_fields import ProbeConclusion, ProbeEffect, ProbeInteraction

    every = design.changes
    by_subset = dict(zip(map(frozenset, design.combinations()), pairs, strict=True))
    found = {subset: pair for subset, pair in by_subset.items() if pair is not None}
    if len(found) < len(by_subset):
        sentence = (
            f"{count(len(by_subset) - len(found), 'combination')} could not be measured, so no share can be told"
        )
        return Findings([ProbeConclusion("cannot_tell", f"{sentence}.")])

    def told(weights: Mapping[Subset, float]) -> Interval:
        first = next(iter(found.values()))
        confidence = first.context.confidence
        return contrast([found[each] for each in weights], list(weights.values()), confidence=confidence)

    whole, rest = told({frozenset(): 1.0}), told({frozenset(every): 1.0})
    gap = whole.value or 0.0
    if gap <= 0.0:
        return Findings([ProbeConclusion("no_gap", "There is no gap to share out.")])

    def effect(change: str, interval: Interval) -> ProbeEffect:
        return ProbeEffect(change, interval, (interval.value or 0.0) / gap)

    weights = {change: _taken_away(change, design) for change in every}
    effects = [effect(str(change), told(weights[change])) for change in every]
    effects.sort(key=lambda each: -(each.tv.value or 0.0))
    if not design.is_full and (others := _of_more(every, list(weights.values()))):
        effects.append(effect(_MORE, told(others)))
    effects.append(effect(REST, rest))
    interactions = [
        ProbeInteraction(
            " or ".join(f"{one} and {other}" for one, other in confounded),
            interval := told(each),
            (interval.value or 0.0) / gap,
        )
        for confounded, each in design.together()
    ]
    interactions.sort(key=lambda each: -abs(each.tv.value or 0.0))
    conclusion = [ProbeConclusion("shares", f"{_shares(whole, effects)}.")]
    conclusion += _of_design(design)
    conclusion += _do_not_add_up(effects, interactions, gap)
    return Findings(conclusion, effects, interactions=interactions, design=_design(design))


def _taken_away(change: Candidate, design: Factorial[Candidate]) -> dict[Subset, float]:
    """Weights of the gaps whose sum is the share of a change."""
    return _shapley(change, design.changes) if design.is_full else design.taken_away(change)


def _of_more(every: Sequence[Candidate], shares: Sequence[Mapping[Subset, float]]) -> dict[Subset, float]:
    """What goes from the whole gap to the rest and is in no share: none where every combination of a fraction is
    needed for the shares."""
    weights: dict[Subset, float] = {frozenset(): 1.0, frozenset(every): -1.0}
    for taken in shares:
        for subset, weight in taken.items():
            weights[subset] = weights.get(subset, 0.0) - weight
    return weights if any(abs(weight) > 1e-9 for weight in weights.values()) else {}


def _design(design: Factorial[Candidate]) -> ProbeDesign:
    from ..reports.pair_fields import ProbeDesign

    return ProbeDesign(
        settings=len(design.changes),
        combinations=len(design.combinations()),
        resolution=design.resolution,
        generators={str(change): [str(each) for each in product] for change, product in design.generators.items()},
    )


def _of_design(design: Factorial[Candidate]) -> Iterator[ProbeConclusion]:
    """Of a fraction: what is confounded with what."""
    from ..reports.pair_fields import ProbeConclusion

    if design.is_full:
        return
    pairs = [len(confounded) for confounded, _ in design.together()]
    ran = f"{len(design.combinations())} of {2 ** len(design.changes):,} combinations were run"
    apart = "what two do together is told for each pair by itself"
    if max(pairs) > 1:
        apart = f"what two do together is told for up to {max(pairs)} pairs at once, as their sum"
    share_of = "a share is of its setting alone as far as no three or more settings act together"
    yield ProbeConclusion("fraction", f"{ran} (resolution {_ROMAN[design.resolution or 4]}): {share_of}; {apart}.")


def _do_not_add_up(
    effects: Sequence[ProbeEffect], interactions: Sequence[ProbeInteraction], gap: float
) -> Iterator[ProbeConclusion]:
    from ..reports.pair_fields import ProbeConclusion

    together = [
        f"{each.changes} ({share(_rounded(each.share))})"
        for each in interactions
        if _is_apart(each.tv, _TOGETHER * gap)
    ]
    if together:
        sentence = "The shares depend on the order in which the settings are changed: together they do more or less"
        yield ProbeConclusion("do_not_add_up", f"{sentence} than apart, {'; '.join(together)}.")
    for each in effects:
        if each.change == _MORE and _is_apart(each.tv, _TOGETHER * gap):
            sentence = f"Three or more settings do {share(_rounded(each.share))} of it together, some of which may"
            yield ProbeConclusion("do_not_add_up", f"{sentence} be in the shares of single ones too.")


def _shares(whole: Interval, effects: Sequence[ProbeEffect]) -> str:
    """The shares of the changes whose effects are told from 0, and which are not."""
    told = [effect for effect in effects if effect.change == REST or _is_apart(effect.tv, 0.0)]
    shares = ", ".join(f"{effect.change} {share(_rounded(effect.share))}" for effect in told)
    others = [effect.change for effect in effects if effect not in told]
    not_told = f"; not told from 0: {', '.join(others)}" if others else ""
    return f"Of a mean TV of {estimate(whole.value, whole.low, whole.high)}: {shares}{not_told}"


def _shapley(candidate: Candidate, every: Sequence[Candidate]) -> dict[Subset, float]:
    """Weights of the gaps of all subsets, whose sum is what the candidate takes away on average over all orders."""
    weights: dict[Subset, float] = {}
    others = [each for each in every if each != candidate]
    for size in range(len(others) + 1):
        weight = 1.0 / (len(every) * math.comb(len(others), size))
        for before in map(frozenset, itertools.combinations(others, size)):
            weights[before] = weight
            weights[before | {candidate}] = -weight
    return weights


def _is_apart(interval: Interval, least: float) -> bool:
    """Whether the whole interval is beyond `least`, on either side of 0. One prompt tells nothing."""
    if interval.low is None or interval.high is None:  # where prompts do not differ, the value is all there is
        return interval.clusters > 1 and abs(interval.value or 0.0) > least
    return interval.low > least or interval.high < -least


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


PROBE = Probe(_plan, search=_search, smaller=_smaller, takes_changes=True)
