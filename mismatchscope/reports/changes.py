"""How much a figure has changed from one report to another, with an interval.

Two reports of the same prompts are paired by prompt where both kept their sums: what a prompt has in common with
itself cancels. The responses are others, so nothing can be paired by state. Other figures are combined by MOVER
(Zou and Donner 2008, "Construction of confidence limits about effect measures") as two independent ones. In either
way a change smaller than the noise of the two reports has an interval that holds 0.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .figure_ends import CENTERS, RUN_TO_RUN, Figure
from .figure_paths import figure_at

if TYPE_CHECKING:
    from ..measures.results import Interval
    from .document import Report


def change(report: Report, baseline: Report, path: str, factor: float = 1.0) -> Figure:
    """The figure at `path` in `report` less `factor` times that in `baseline`, with what is known of its ends."""
    ours, base = figure_at(report, path), figure_at(baseline, path)
    if ours.value is None or base.value is None:
        return Figure(None, reason=ours.reason if ours.value is None else base.reason)
    value = ours.value - factor * base.value
    if math.isnan(value):
        return Figure(None, reason="it is infinite in both reports")
    if math.isinf(value):
        return Figure(value, value, value)
    if ours.of_this_run:
        return Figure(value, reason=RUN_TO_RUN)
    paired = _paired_difference(report, baseline, path, factor)
    if paired is not None:
        return Figure(paired.value, paired.low, paired.high)
    if ours.low is None or ours.high is None or base.low is None or base.high is None:
        return Figure(value, reason=ours.reason or base.reason)
    below = math.hypot(ours.value - ours.low, factor * (base.high - base.value))
    above = math.hypot(ours.high - ours.value, factor * (base.value - base.low))
    return Figure(value, value - below, value + above)


def _paired_difference(report: Report, baseline: Report, path: str, factor: float) -> Interval | None:
    """The mean at `path` less `factor` times the baseline's, paired by prompt.

    None where nothing can be paired: the figure is no mean that both reports have the sums of, or they share less
    than two prompts.
    """
    import numpy as np

    from ..measures.paired_change import paired_change

    group, _, last = path.rpartition(".")
    group = group if last in CENTERS else path
    ours, base = _sums(report, group), _sums(baseline, group)
    if len(ours.keys() & base.keys()) < 2:
        return None
    prompts = sorted(ours.keys() | base.keys())
    (sum_C, count_C), (base_sum_C, base_count_C) = (
        np.array([side.get(prompt, (0.0, 0)) for prompt in prompts]).T for side in (ours, base)
    )
    confidence = report.alpha1.mean.confidence
    return paired_change(sum_C, count_C, base_sum_C, base_count_C, factor=factor, confidence=confidence)


def _sums(report: Report, group: str) -> dict[str, tuple[float, int]]:
    """(sum, count) by prompt; empty unless they add up to the mean that the report has, with both its ends."""
    held = report.prompt_sums
    if held is None or group not in held.figures:
        return {}
    found, figure = held.figures[group], figure_at(report, group)
    total = sum(found.counts)
    if figure.value is None or figure.low is None or figure.high is None or not total:
        return {}
    if not math.isclose(math.fsum(found.sums) / total, figure.value, rel_tol=1e-9, abs_tol=1e-15):
        return {}
    return dict(zip(held.prompts, zip(found.sums, found.counts, strict=True), strict=True))
