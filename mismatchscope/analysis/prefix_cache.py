"""Whether early positions became worse than later ones, as a prefix cache leaves them that outlived its weights.

Shapes: P labels of the table of places, T steps.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from ..measures.autocorrelation import relative_change
from ..measures.binned_sums import IMPURITY, TV
from ..measures.change_points import change_points
from ..measures.log_results import ChangePoint, StaleCache
from ..reports.text import number
from .groups import GroupSums
from .trend import FEWEST, WINDOW

Array = np.ndarray

_FEWEST_STEPS = 12
_BEYOND_CONTENT = 2.0
"""What a cache is called needs a change by this factor. Logits with errors alike make mean TV proportional to the
Gini impurity to within a factor of √2, whatever the states are; so other prompts alone do not pass it."""


def stale_cache_of(sums: GroupSums, *, confidence: float = 0.95) -> StaleCache | None:
    """Whether early positions became worse than late ones, as after a restart or an update of the weights that left
    keys and values of older ones in a prefix cache; None where the log has no steps.

    Early positions read what the cache holds of the prompt. All figures are mean TV per unit of Gini impurity, so
    that states which became less certain do not count as worse ones.
    """
    table = sums.tables["place"]
    label_P = table.labels()[0]
    if not len(label_P):
        return None
    total_PF = table.by_label()
    steps, early, late = _levels(label_P, total_PF[:, TV], total_PF[:, IMPURITY])
    if len(steps) < _FEWEST_STEPS:
        return StaleCache(
            code="cannot_tell",
            sentence=f"A stale prefix cache cannot be told: that takes {_FEWEST_STEPS} steps with a mean TV above "
            f"0 both at positions below 16 and from 64 to 255, and this log has {len(steps)}.",
        )
    window = max(FEWEST, round(WINDOW * len(steps)))
    of_contrast, of_early, of_late = (change_points(steps, each) for each in (early / late, early, late))
    breaks = tuple(sorted({int(np.searchsorted(steps, each.step)) for each in (*of_contrast, *of_early, *of_late)}))
    changes = [relative_change(each, window, breaks=breaks, confidence=confidence) for each in (early, late)]
    contrast, level = _clearest_rise(of_contrast), _clearest_rise((*of_early, *of_late))
    code: Literal["stale_cache", "neither", "cannot_tell"]
    if contrast is not None:
        since = contrast.step
        times = (
            f"Since step {since:,} mean TV at positions below 16 is {number(contrast.after)} times that from 64 to "
            f"255, before {number(contrast.before)} times, at like certainty"
        )
        if _is_cache(contrast, steps, early):
            code = "stale_cache"
            sentence = (
                f"{times}: as a prefix cache leaves it that kept keys and values of older weights. Another "
                "template or kernel for prompts looks alike."
            )
        else:
            code = "cannot_tell"
            sentence = f"{times}: too little to tell a stale prefix cache from other prompts."
    elif level is not None:
        since, code = level.step, "cannot_tell"
        sentence = (
            f"Since step {since:,} mean TV at like certainty is {number(level.after / level.before)} times as "
            "large, but not of positions below 16 against later ones, as a stale prefix cache makes it. Older "
            "weights, another precision or kernel, and prompts of another kind look alike in it."
        )
    else:
        since, code = None, "neither"
        sentence = (
            "No step is seen from which on mean TV at like certainty is larger, neither at positions below 16 nor "
            "from 64 to 255."
        )
    return StaleCache(code, sentence, early=changes[0], late=changes[1], since=since)


def _clearest_rise(changes: tuple[ChangePoint, ...]) -> ChangePoint | None:
    rises = [each for each in changes if each.after > each.before]
    return min(rises, key=lambda each: each.p_value, default=None)


def _is_cache(contrast: ChangePoint, steps: Array, early: Array) -> bool:
    """Whether early positions rose, against late ones and against their own past, by more than other states do."""
    after = steps >= contrast.step
    own = float(early[after].mean() / early[~after].mean())
    return min(contrast.after / contrast.before, own) >= _BEYOND_CONTENT


def _levels(label_P: Array, tv_P: Array, impurity_P: Array) -> tuple[Array, Array, Array]:
    """(steps, level of early, of late positions), of steps where both are above 0."""
    known = [
        (int(label), float(tv / impurity))
        for label, tv, impurity in zip(label_P, tv_P, impurity_P, strict=True)
        if tv > 0 and impurity > 0
    ]
    early, late = ({label // 2: level for label, level in known if label % 2 == each} for each in (0, 1))
    steps = sorted(early.keys() & late.keys())
    return np.array(steps), np.array([early[step] for step in steps]), np.array([late[step] for step in steps])
