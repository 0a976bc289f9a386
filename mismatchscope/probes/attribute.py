"""How much of the gap each setting makes: every combination of the settings that differ, on the same tokens.

A setting's share is what it takes away, averaged over all orders in which the settings can be changed (Shapley
1953, "A Value for n-Person Games"): the shares and what is left with everything changed add up to the whole gap,
whatever the settings do together. Where the order matters, no share is the setting's own, and that is said.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..errors import ConfigError
from ..reports.text import count, estimate, share
from .candidates import Candidate, candidates, variant
from .plan import Comparison, Findings, Plan, Probe, Question, Search, Setting

if TYPE_CHECKING:
    from ..comparison.pair import Pair
    from ..measures.results import Interval
    from ..reports.pair_fields import ProbeEffect
    from .cells import MeasuredCell

_MOST = 5
"""Settings, whose combinations are 2 to this power."""
_TOGETHER = 0.1
"""Share of the whole gap above which what two settings do together is worth a sentence."""

_REST = "rest"

Subset = frozenset[Candidate]


def _plan(question: Question) -> Plan:
    every = candidates(question)
    if len(every) > _MOST:
        raise ConfigError(
            f"{count(len(every), 'setting')} have {2 ** len(every):,} combinations, more than anyone waits for.",
            hint=f"--values and {_MOST} of {', '.join(each.key for each in every)}; probe bisect takes all",
        )
    reference = Setting("the reference", "reference", question.reference, "prefill")
    *subsets, last = _subsets(every)
    settings = [*(variant(question, subset) for subset in subsets), variant(question, last, "everything changed")]
    keys = sorted({key for setting in settings for key in setting.spec.options})
    return Plan(
        "what differs between the two SPECs, in every combination",
        [Comparison(reference, setting) for setting in settings],
        keys=keys,
        the_gap=True,
    )


def _subsets(every: Sequence[Candidate]) -> list[tuple[Candidate, ...]]:
    """From none to all of them."""
    return [subset for size in range(len(every) + 1) for subset in itertools.combinations(every, size)]


def _search(question: Question, cells: Sequence[MeasuredCell]) -> Search:
    yield from ()  # every combination is in the first plan
    return _findings(candidates(question), [each.trusted for each in cells])


def _findings(every: Sequence[Candidate], pairs: Sequence[Pair | None]) -> Findings:
    from ..comparison.contrast import contrast
    from ..reports.pair_fields import ProbeConclusion, ProbeEffect

    by_subset = dict(zip(map(frozenset, _subsets(every)), pairs, strict=True))
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
    effects = [
        ProbeEffect(str(candidate), interval := told(_shapley(candidate, every)), (interval.value or 0.0) / gap)
        for candidate in every
    ]
    effects.sort(key=lambda effect: -(effect.tv.value or 0.0))
    effects.append(ProbeEffect(_REST, rest, (rest.value or 0.0) / gap))
    conclusion = [ProbeConclusion("shares", f"{_shares(whole, effects)}.")]
    together = [
        f"{one} and {other} ({share(_rounded((interval.value or 0.0) / gap))})"
        for one, other in itertools.combinations(every, 2)
        if _is_apart(interval := told(_interaction(one, other, every)), _TOGETHER * gap)
    ]
    if together:
        sentence = "The shares depend on the order in which the settings are changed: together they do more or less"
        conclusion.append(ProbeConclusion("do_not_add_up", f"{sentence} than apart, {'; '.join(together)}."))
    return Findings(conclusion, effects)


def _shares(whole: Interval, effects: Sequence[ProbeEffect]) -> str:
    """The shares of the changes whose effects are told from 0, and which are not."""
    told = [effect for effect in effects if effect.change == _REST or _is_apart(effect.tv, 0.0)]
    shares = ", ".join(f"{effect.change} {share(_rounded(effect.share))}" for effect in told)
    others = [effect.change for effect in effects if effect not in told]
    not_told = f"; not told from 0: {', '.join(others)}" if others else ""
    return f"Of a mean TV of {estimate(whole.value, whole.low, whole.high)}: {shares}{not_told}"


def _shapley(candidate: Candidate, every: Sequence[Candidate]) -> dict[Subset, float]:
    """Weights of the gaps of all subsets, whose sum is what the candidate takes away on average over all orders."""
    weights: dict[Subset, float] = {}
    others = [each for each in every if each != candidate]
    for before in map(frozenset, _subsets(others)):
        weight = 1.0 / (len(every) * math.comb(len(others), len(before)))
        weights[before] = weight
        weights[before | {candidate}] = -weight
    return weights


def _interaction(one: Candidate, other: Candidate, every: Sequence[Candidate]) -> dict[Subset, float]:
    """What changing both takes away beyond what each does alone, averaged over the settings of the rest."""
    rest = [each for each in every if each not in (one, other)]
    subsets = [frozenset(subset) for subset in _subsets(rest)]
    weight = 1.0 / len(subsets)
    signs = {frozenset(): -1.0, frozenset([one]): 1.0, frozenset([other]): 1.0, frozenset([one, other]): -1.0}
    return {subset | pair: sign * weight for subset in subsets for pair, sign in signs.items()}


def _is_apart(interval: Interval, least: float) -> bool:
    """Whether the whole interval is beyond `least`, on either side of 0. One prompt tells nothing."""
    if interval.low is None or interval.high is None:  # where prompts do not differ, the value is all there is
        return interval.clusters > 1 and abs(interval.value or 0.0) > least
    return interval.low > least or interval.high < -least


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


PROBE = Probe(_plan, search=_search)
