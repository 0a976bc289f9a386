"""The one sentence that an audit ends with, gate or no gate."""

from __future__ import annotations

from ..measures.excess import Excess
from ..measures.results import Alpha
from ..reports.document import Counts, Finding, Floors
from ..reports.text import count, estimate, number


def finding_of(
    alpha: Alpha, floors: Floors, excess: Excess | None, counts: Counts, *, identical: bool, deterministic: bool
) -> Finding:
    """What was found: bit-identical, above the repeat floor, within a margin of it, or neither, or no floor to say.

    Above and within are claims with an error rate each (`measures.excess`). `deterministic` says that both sides
    repeat to the bit at all these states, which makes it certain that a difference is no noise. What is neither is
    unresolved, however small it looks.
    """
    sample = f"{count(counts.tokens, 'token')} of {count(counts.prompts, 'prompt')}"
    if counts.rejected:
        sample += f"; {count(counts.rejected, 'row')} rejected"
    sample = f"({sample})"
    if identical:
        where = "Bit-identical in what is left" if counts.rejected else "Bit-identical"
        return Finding(code="identical", sentence=f"{where}: no recorded log-prob differs at all {sample}.")
    mean = alpha.mean
    measured = f"mean TV {mean_or_ends(alpha)}, α₁ ≥ {number(alpha.observed_max)}"
    sides = {name: side for name, side in (("μ", floors.behavior), ("π", floors.reference)) if side is not None}
    if not sides:
        return Finding(code="no_floor", sentence=f"No repeat floor was measured: {measured} {sample}.")
    if deterministic:
        certain = "Above the repeat floor: repeats are bit-identical, and μ and π are not"
        return Finding(code="above_floor", sentence=f"{certain}; {measured} {sample}.")
    known = {name: side.mean.value for name, side in sides.items() if side.mean.value is not None}
    if not known:
        sentence = f"No repeat floor: this evidence does not give the mean TV of the repeats; {measured} {sample}."
        return Finding(code="unresolved", sentence=sentence)
    noise, alone = max(known.values()), f" ({next(iter(known))} alone)" if len(known) == 1 else ""
    floor = f"the repeat floor of {number(noise)}{alone}" if noise > 0 else f"the repeat floor{alone}, which is 0"
    if excess is not None and excess.above:
        times = (
            f", {number(mean.value / noise)} times it" if noise > 0 and mean.value and mean.value > noise else ""
        )
        return Finding(
            code="above_floor",
            sentence=f"Above {floor}{times}: {measured} {sample}.",
            margin=excess.margin,
        )
    if excess is not None and excess.within:
        margin = f"to a margin of {number(excess.margin)} ({number(excess.margin / noise)} of it)"
        over = f"the excess is {_difference(excess)}"
        return Finding(
            code="within_floor",
            sentence=f"Within {floor}, {margin}: {over}; {measured} {sample}.",
            margin=excess.margin,
        )
    return Finding(
        code="unresolved",
        sentence=f"{_why_unresolved(excess, floor)}: {measured} {sample}.",
        margin=None if excess is None else excess.margin,
        prompts_needed=None if excess is None else excess.needed_clusters,
    )


def mean_or_ends(alpha: Alpha) -> str:
    """The mean TV with its interval; where there is no estimate of it, what the evidence bounds it by."""
    mean = alpha.mean
    if mean.value is None and mean.low is None:
        return "not measurable from this evidence"
    return estimate(mean.value, mean.low, mean.high)


def decided_by(excess: Excess) -> str:
    """How many prompts would likely decide."""
    if excess.needed_clusters is None:
        return "how many prompts would decide cannot be told"
    return f"about {count(excess.needed_clusters, 'prompt')} would likely decide"


def _why_unresolved(excess: Excess | None, floor: str) -> str:
    if excess is None:  # a repeat of other sequences, or no figure that means TV on both
        return f"Cannot be paired by prompt with {floor}"
    difference = excess.difference
    if difference.clusters < 2:
        return f"Too few prompts to tell from {floor}"
    if difference.low is None:
        return f"All prompts are as far from {floor}, so no interval tells them apart"
    over = f"the excess is {_difference(excess)}; {decided_by(excess)}"
    if excess.margin == 0:
        return f"Not shown to be above {floor}; {over}"
    return f"Neither above {floor} nor within a margin of {number(excess.margin)} of it; {over}"


def _difference(excess: Excess) -> str:
    difference = excess.difference
    return estimate(difference.value, difference.low, difference.high)
