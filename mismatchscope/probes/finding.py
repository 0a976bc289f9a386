"""The one sentence that an audit ends with, gate or no gate."""

from __future__ import annotations

from ..report import Alpha, Counts, Finding, Floors


def finding(alpha: Alpha, floors: Floors, counts: Counts, *, identical: bool) -> Finding:
    """What was found: bit-identical, within the repeat floor, above it (and by how much), or without one to say.

    Above the floor means that the whole interval of the prompt-paired excess lies above zero.
    """
    sample = f"n = {counts.tokens} tokens of {counts.prompts} prompts"
    if identical:
        return Finding(code="identical", sentence=f"Bit-identical: no recorded log-prob differs at all ({sample}).")
    measured = (
        f"mean TV {_interval(alpha.mean.value, alpha.mean.low, alpha.mean.high)}, α₁ ≥ {alpha.observed_max:.3g}"
    )
    noises = [side.mean.value for side in (floors.behavior, floors.reference) if side is not None]
    noises = [noise for noise in noises if noise is not None]
    if not noises:
        return Finding(code="no_floor", sentence=f"No repeat floor was measured: {measured} ({sample}).")
    excess, noise = floors.excess, max(noises)
    floor = f"the repeat floor of {noise:.3g}" if noise > 0 else "the repeat floor (repeats are identical)"
    if excess is None or excess.low is None:
        return Finding(
            code="unresolved", sentence=f"Too few prompts to tell it from {floor}: {measured} ({sample})."
        )
    if excess.low > 0:
        times = f", {alpha.mean.value / noise:.3g} times it" if noise > 0 and alpha.mean.value else ""
        return Finding(code="above_floor", sentence=f"Above {floor}{times}: {measured} ({sample}).")
    return Finding(code="within_floor", sentence=f"Within {floor}: {measured} ({sample}).")


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "not measurable from this evidence"
    if low is None or high is None:
        return f"{value:.3g}"
    return f"{value:.3g} [{low:.3g}, {high:.3g}]"
