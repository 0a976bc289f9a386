"""Is the new engine closer to the trainer than the old one? Three pairs of policies on the same tokens."""

from __future__ import annotations

from typing import Literal, NamedTuple

from ..measures.excess import Excess
from ..measures.results import Interval
from ..reports.document import BaselineComparison
from ..reports.text import count, estimate, number
from ..traces.reader import Trace
from .finding import decided_by, mean_or_ends
from .floors import pair_excess
from .pair import Pair, measure_pair
from .paired_states import PairedDifferences
from .provenance import differences, provenance_of
from .rounding_size import rounding_size

MARGIN = 1.0
"""A change of mean TV below one repeat floor of the new engine counts as none."""


class BaselineVerdict(NamedTuple):
    verdict: Literal["unchanged", "changed", "better", "worse", "inconclusive"]
    sentence: str


def compare_with_baseline(pair: Pair, old: Trace, repeat: Pair | None) -> BaselineComparison:
    """Hold new against trainer (`pair`), old against trainer and new against old, all on the same tokens.

    `repeat` is the new engine against itself, None where it was not run twice: a change that a repeat shows too
    is none. The tokens were drawn from the new engine, so what they estimate of the old pair is weighted.
    """
    old_reference = measure_pair(old, pair.pi, pair.context.of_other_engine(pair.mu))
    new_old = measure_pair(pair.mu, old, pair.context.of_behavior())
    paired = PairedDifferences.of(pair, old_reference)
    size = rounding_size(new_old)
    change = None if repeat is None else pair_excess(new_old, repeat, margin=MARGIN)
    verdict = _verdict(new_old, paired.tv, repeat, change)
    return BaselineComparison(
        verdict=verdict.verdict,
        sentence=verdict.sentence,
        old_reference=old_reference.summary,
        new_old=new_old.summary,
        change=None if change is None else change.difference,
        margin=None if change is None else change.margin,
        prompts_needed=change.needed_clusters if change is not None and verdict.verdict == "inconclusive" else None,
        tv_difference=paired.tv,
        kl_difference=paired.kl,
        abs_logprob_difference=paired.abs_logprob_diff or Interval(None, confidence=pair.context.confidence),
        provenance=provenance_of(old),
        # The old engine decodes the tokens that the new one drew: the same path, one token at a time.
        difference=differences(provenance_of(pair.mu) | {"path": "decode"}, provenance_of(old), size),
        size=size,
    )


def _verdict(
    new_old: Pair, difference: Interval | None, repeat: Pair | None, change: Excess | None
) -> BaselineVerdict:
    """No change is an equivalence claim: what is below the margin counts as none, even where it is told from noise.
    Any other change must be told from noise before it has a direction.

    `difference` is mean TV to the trainer, new less old.
    """
    counts = new_old.counts
    sample = f"({count(counts.tokens, 'token')} of {count(counts.prompts, 'prompt')})"
    if new_old.figures.identical:
        sentence = f"Bit-identical to the baseline: no recorded log-prob differs at all {sample}."
        return BaselineVerdict("unchanged", sentence)
    apart = f"mean TV between the two is {mean_or_ends(new_old.alpha)}"
    deterministic = repeat is not None and repeat.figures.identical
    if change is not None and change.within:
        floor = mean_or_ends(repeat.alpha) if repeat is not None else ""
        sentence = (
            f"Unchanged: {apart}, of a repeat of the new one it is {floor}; they differ by less than a margin of "
            f"{number(change.margin)} {sample}."
        )
        return BaselineVerdict("unchanged", sentence)
    if repeat is not None and not deterministic and (change is None or not change.above):
        needed = f"; {decided_by(change)}" if change is not None else ""
        sentence = (
            f"Neither unchanged nor changed beyond what a repeat of the new engine shows: {apart}{needed} {sample}."
        )
        return BaselineVerdict("inconclusive", sentence)
    unproved = "" if repeat is not None else "; the new engine was not run twice, so part of this may be noise"
    if difference is None or difference.value is None or difference.low is None or difference.high is None:
        sentence = f"It differs from the baseline, {apart}{unproved}; which is closer cannot be said {sample}."
        return BaselineVerdict("inconclusive", sentence)
    if difference.high < 0:
        less = estimate(-difference.value, -difference.high, -difference.low)
        sentence = f"Closer to the trainer than the baseline: mean TV to it is lower by {less}{unproved} {sample}."
        return BaselineVerdict("better", sentence)
    more = estimate(difference.value, difference.low, difference.high)
    if difference.low > 0:
        sentence = (
            f"Further from the trainer than the baseline: mean TV to it is higher by {more}{unproved} {sample}."
        )
        return BaselineVerdict("worse", sentence)
    sentence = (
        f"It differs from the baseline, {apart}, and which is closer to the trainer is open: mean TV to it, new "
        f"less old, is {more}{unproved} {sample}."
    )
    return BaselineVerdict("changed", sentence)
