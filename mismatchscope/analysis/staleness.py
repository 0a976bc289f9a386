"""How much of the mismatch comes with older weights: by lag, and whether a prefix cache was left over from them.

Shapes: C clusters (prompts), L lags, E rows of a table, T steps.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from ..measures.autocorrelation import relative_change
from ..measures.binned_sums import TOKENS, TV
from ..measures.change_points import change_points
from ..measures.intervals import UNIT
from ..measures.label_sums import LabelSums
from ..measures.lag_slope import slope_of_means
from ..measures.log_results import StaleCache, Staleness
from ..measures.paired_change import paired_change
from ..measures.results import Interval
from .group_rows import label_mean
from .groups import GroupSums
from .trend import FEWEST, WINDOW

Array = np.ndarray
Code = Literal["stale_cache", "stale_weights", "neither"]

_SAME_STEPS = 0.5
"""Share of the tokens with a lag that must come from steps with tokens at lag 0 too, or a drift may be the
excess."""
_FEWEST_STEPS = 12


def staleness_of(sums: GroupSums, *, tolerance: float | None = None, confidence: float = 0.95) -> Staleness | None:
    """Numerics against staleness; None where the log has no tokens at lag 0, or none at another lag."""
    table = sums.tables["lag"]
    lag_L, start_L1 = table.labels()
    if 0 not in lag_L or len(lag_L) < 2:
        return None
    lag_E = np.repeat(lag_L, np.diff(start_L1))
    _, cluster_E = np.unique(table.cluster_E, return_inverse=True)
    clusters = int(cluster_E.max()) + 1
    tv_E, count_E = table.sum_EF[:, TV], table.sum_EF[:, TOKENS]

    def of(rows_E: Array) -> tuple[Array, Array]:
        found = [np.bincount(cluster_E[rows_E], each_E[rows_E], minlength=clusters) for each_E in (tv_E, count_E)]
        return found[0], found[1]

    fresh, every = of(lag_E == 0), of(np.ones(len(lag_E), dtype=bool))
    by_lag = [(int(lag), label_mean(*of(lag_E == lag), confidence=confidence, bounds=UNIT)) for lag in lag_L]
    within_it = [lag for lag, mean in by_lag if tolerance is None or mean.low is None or mean.low <= tolerance]
    beyond = [lag for lag, _ in by_lag if not within_it or lag > max(within_it)]
    within, share = _within_steps(sums.tables["stale"], confidence)
    return Staleness(
        numerics=label_mean(*fresh, confidence=confidence, bounds=UNIT),
        total=label_mean(*every, confidence=confidence, bounds=UNIT),
        excess=paired_change(*every, *fresh, confidence=confidence),
        per_lag=slope_of_means(lag_E.astype(float), cluster_E, tv_E, count_E, confidence=confidence),
        tolerance=tolerance,
        passed_at=min(beyond) if beyond else None,
        within_steps=within,
        remark=None if share >= _SAME_STEPS else _other_steps(share),
    )


def _other_steps(share: float) -> str:
    return (
        f"Only {share:.0%} of the tokens with a lag come from steps that have tokens at lag 0 too: what changed in "
        "the course of the run cannot be told from staleness."
    )


def _within_steps(table: LabelSums, confidence: float) -> tuple[Interval | None, float]:
    """Stale less fresh in the steps that have both, and their share of all stale tokens.

    Each step's fresh tokens weigh as much as its stale ones, so that a step's own level cancels.
    """
    step_E, stale_E = table.label_E // 2, table.label_E % 2 == 1
    tv_E, count_E = table.sum_EF[:, TV], table.sum_EF[:, TOKENS]
    all_T, index_E = np.unique(step_E, return_inverse=True)
    if not len(all_T) or not stale_E.any():
        return None, 0.0
    stale_T, fresh_T = (np.bincount(index_E[of], count_E[of], minlength=len(all_T)) for of in (stale_E, ~stale_E))
    both_T = (stale_T > 0) & (fresh_T > 0)
    share = float(stale_T[both_T].sum() / stale_T.sum())
    if not both_T.any():
        return None, share
    kept_E = both_T[index_E]
    weight_E = np.where(stale_E, 1.0, (stale_T / np.maximum(fresh_T, 1))[index_E])[kept_E]
    _, cluster_E = np.unique(table.cluster_E[kept_E], return_inverse=True)
    sides = []
    for side_E in (stale_E[kept_E], ~stale_E[kept_E]):
        for each_E in (tv_E, count_E):
            sides.append(np.bincount(cluster_E, each_E[kept_E] * weight_E * side_E))
    return paired_change(*sides, confidence=confidence), share


def stale_cache_of(sums: GroupSums, *, confidence: float = 0.95) -> StaleCache | None:
    """Whether early positions became worse than late ones, as after a restart or an update of the weights that left
    keys and values of older ones in a prefix cache; None where the log has no steps.

    Early positions read what the cache holds of the prompt; stale weights are as stale at every position. So a rise
    of early over late is a cache, and a rise of late positions is none.
    """
    table = sums.tables["place"]
    label_P = table.labels()[0]
    if not len(label_P):
        return None
    total_PF = table.by_label()
    steps, early, late = _levels(label_P, total_PF[:, TV], total_PF[:, TOKENS])
    if len(steps) < _FEWEST_STEPS:
        return StaleCache(
            code="cannot_tell",
            sentence=f"A stale prefix cache cannot be told: that takes {_FEWEST_STEPS} steps with a mean TV above "
            f"0 both at positions below 16 and from 64 on, and this log has {len(steps)}.",
        )
    window = max(FEWEST, round(WINDOW * len(steps)))
    contrast, of_late = change_points(steps, early / late), change_points(steps, late)
    rises = [each for each in contrast if each.after > each.before]
    late_rises = [each for each in of_late if each.after > each.before]
    breaks = tuple(sorted({int(np.searchsorted(steps, each.step)) for each in (*contrast, *of_late)}))

    def found(code: Code, sentence: str, since: int | None = None) -> StaleCache:
        changes = [relative_change(each, window, breaks=breaks, confidence=confidence) for each in (early, late)]
        return StaleCache(code, sentence, early=changes[0], late=changes[1], since=since)

    if rises:
        clearest = min(rises, key=lambda each: each.p_value)
        sentence = (
            f"Since step {clearest.step} positions below 16 are worse against those from 64 on: mean TV is "
            f"{clearest.after:.3g} times theirs, before {clearest.before:.3g} times. A prefix cache that kept "
            "keys and values of older weights does this, and so do prompts whose responses begin otherwise."
        )
        return found("stale_cache", sentence, clearest.step)
    if late_rises:
        clearest = min(late_rises, key=lambda each: each.p_value)
        sentence = (
            f"Since step {clearest.step} mean TV is higher from position 64 on ({clearest.before:.3g} before, "
            f"{clearest.after:.3g} after), and positions below 16 no more so: not what a prefix cache does. Older "
            "weights do this, and so do harder prompts or longer responses."
        )
        return found("stale_weights", sentence, clearest.step)
    return found("neither", "No change of early positions against late ones, nor of late ones, was found.")


def _levels(label_P: Array, tv_P: Array, count_P: Array) -> tuple[Array, Array, Array]:
    """(steps, mean TV of early, of late positions), of steps where both are above 0."""
    mean_P = tv_P / count_P
    early = {
        int(label) // 2: mean for label, mean in zip(label_P, mean_P, strict=True) if label % 2 == 0 and mean > 0
    }
    late = {
        int(label) // 2: mean for label, mean in zip(label_P, mean_P, strict=True) if label % 2 == 1 and mean > 0
    }
    steps = sorted(early.keys() & late.keys())
    return np.array(steps), np.array([early[step] for step in steps]), np.array([late[step] for step in steps])
