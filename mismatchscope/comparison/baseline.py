"""Is the new engine closer to the trainer than the old one? Three pairs of policies on the same tokens."""

from __future__ import annotations

from typing import Literal, NamedTuple

from ..measures.results import Interval
from ..reports.document import BaselineComparison, Floor
from ..reports.text import count, estimate, number
from ..traces.reader import Trace
from .pair import Pair, measure_pair
from .paired_states import PairedDifferences
from .provenance import differences, provenance_of
from .rounding_size import rounding_size


class BaselineVerdict(NamedTuple):
    verdict: Literal["unchanged", "changed", "better", "worse", "inconclusive"]
    sentence: str


def compare_with_baseline(pair: Pair, old: Trace, floor: Floor | None) -> BaselineComparison:
    """Hold new against trainer (`pair`), old against trainer and new against old, all on the same tokens.

    `floor` is the new engine's repeat floor, None where it was not measured: a change inside it is none. The tokens
    were drawn from the new engine, so the old pair has no sampled-token estimators of TV and KL.
    """
    old_reference = measure_pair(old, pair.pi, pair.context.of_other_engine())
    new_old = measure_pair(pair.mu, old, pair.context.of_behavior())
    paired = PairedDifferences.of(pair, old_reference)
    size = rounding_size(new_old)
    verdict = _verdict(new_old, paired.tv, floor)
    return BaselineComparison(
        verdict=verdict.verdict,
        sentence=verdict.sentence,
        old_reference=old_reference.summary,
        new_old=new_old.summary,
        tv_difference=paired.tv,
        kl_difference=paired.kl,
        abs_logprob_difference=paired.abs_logprob_diff or Interval(None, confidence=pair.context.confidence),
        provenance=provenance_of(old),
        # The old engine decodes the tokens that the new one drew: the same path, one token at a time.
        difference=differences(provenance_of(pair.mu) | {"path": "decode"}, provenance_of(old), size),
        size=size,
    )


def _verdict(new_old: Pair, tv: Interval | None, floor: Floor | None) -> BaselineVerdict:
    counts = new_old.counts
    sample = f"{count(counts.tokens, 'token')} of {count(counts.prompts, 'prompt')}"
    if new_old.figures.identical:
        sentence = f"Bit-identical to the baseline: no recorded log-prob differs at all ({sample})."
        return BaselineVerdict("unchanged", sentence)
    apart = new_old.alpha
    mean, noise = apart.mean, None if floor is None else floor.mean.value
    moved = f"mean TV between the two {estimate(mean.value, mean.low, mean.high)}"
    if mean.value is None:
        moved = f"TV between the two up to {number(apart.observed_max)} at least"
    elif noise is not None and mean.high is not None and mean.high <= noise:
        sentence = f"Unchanged: {moved}, inside the repeat floor of {number(noise)} ({sample})."
        return BaselineVerdict("unchanged", sentence)
    if tv is None or tv.value is None or tv.low is None or tv.high is None:
        sentence = f"It differs from the baseline, {moved}; which is closer cannot be said ({sample})."
        return BaselineVerdict("inconclusive", sentence)
    if tv.high < 0:
        lower = estimate(-tv.value, -tv.high, -tv.low)
        sentence = f"Closer to the trainer than the baseline: mean TV lower by {lower} ({sample})."
        return BaselineVerdict("better", sentence)
    by = estimate(tv.value, tv.low, tv.high)
    if tv.low > 0:
        sentence = f"Further from the trainer than the baseline: mean TV higher by {by} ({sample})."
        return BaselineVerdict("worse", sentence)
    sentence = f"It differs from the baseline, {moved}, but is no closer to the trainer: by {by} ({sample})."
    return BaselineVerdict("changed", sentence)
