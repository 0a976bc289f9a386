"""The one sentence that an audit ends with, gate or no gate."""

from __future__ import annotations

from ..measures.results import Alpha, Interval
from ..reports.document import Counts, Finding, Floors
from ..reports.text import count, estimate, number


def finding_of(alpha: Alpha, floors: Floors, counts: Counts, *, identical: bool) -> Finding:
    """What was found: bit-identical, within the repeat floor, above it (and by how much), or without one to say.

    Above the floor means that the whole interval of the prompt-paired excess lies above zero.
    """
    sample = f"{count(counts.tokens, 'token')} of {count(counts.prompts, 'prompt')}"
    if counts.rejected:
        sample += f"; {count(counts.rejected, 'row')} rejected"
    if identical:
        return Finding(code="identical", sentence=f"Bit-identical: no recorded log-prob differs at all ({sample}).")
    measured = f"mean TV {_mean(alpha)}, α₁ ≥ {number(alpha.observed_max)}"
    means = [side.mean.value for side in (floors.behavior, floors.reference) if side is not None]
    noises = [mean for mean in means if mean is not None]
    if not noises:
        return Finding(code="no_floor", sentence=f"No repeat floor was measured: {measured} ({sample}).")
    excess, noise = floors.excess, max(noises)
    floor = f"the repeat floor of {number(noise)}" if noise > 0 else "the repeat floor (repeats are identical)"
    if excess is None or excess.low is None:
        unresolved = _why_unresolved(excess, floor)
        return Finding(code="unresolved", sentence=f"{unresolved}: {measured} ({sample}).")
    if excess.low > 0:
        times = f", {number(alpha.mean.value / noise)} times it" if noise > 0 and alpha.mean.value else ""
        return Finding(code="above_floor", sentence=f"Above {floor}{times}: {measured} ({sample}).")
    return Finding(code="within_floor", sentence=f"Within {floor}: {measured} ({sample}).")


def _why_unresolved(excess: Interval | None, floor: str) -> str:
    if excess is None:  # a repeat of other sequences, or no figure that means TV on both
        return f"Cannot be paired by prompt with {floor}"
    if excess.clusters < 2:
        return f"Too few prompts to tell from {floor}"
    return f"All prompts are as far from {floor}, so no interval tells them apart"


def _mean(alpha: Alpha) -> str:
    mean = alpha.mean
    return "not measurable from this evidence" if mean.value is None else estimate(mean.value, mean.low, mean.high)
