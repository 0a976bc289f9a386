"""How tokens sampled by older weights differ from those at lag 0.

A log is observed: what is older may also be later, of other prompts, positions or workers. So the two kinds of
tokens are compared at like conditions too, and what they do not share is named.

Shapes: L lags, E rows of a table.
"""

from __future__ import annotations

import numpy as np

from ..measures.binned_sums import TOKENS, TV
from ..measures.intervals import UNIT
from ..measures.lag_slope import slope_of_means
from ..measures.log_results import Staleness
from ..measures.paired_change import paired_change
from ..measures.rate_model import LEAST_OVERLAP, explained_share, rate_ratio
from ..measures.results import Interval
from ..reports.text import share
from .block import UNKNOWN
from .cells import CELL_IMPURITY, CELL_TOKENS, CELL_TV, CellSums, levels
from .group_rows import label_mean
from .groups import GroupSums

Array = np.ndarray

_FACTORS = {
    "step": "step",
    "worker": "worker",
    "environment": "environment",
    "position": "position",
    "length": "response length",
}
"""What tokens of different lags are compared at, and what it is called."""
_UNBALANCED = 0.1
"""Share of a lag's variation that goes with a factor from which on it is named."""


def staleness_of(sums: GroupSums, *, tolerance: float | None = None, confidence: float = 0.95) -> Staleness | None:
    """Tokens at lag 0 against others; None where the log has no tokens at lag 0, or none at another lag."""
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
    alike, remark = _at_like_conditions(sums.cells, confidence)
    of_stale = label_mean(*of(lag_E != 0), confidence=confidence, bounds=UNIT)
    return Staleness(
        numerics=label_mean(*fresh, confidence=confidence, bounds=UNIT),
        total=label_mean(*every, confidence=confidence, bounds=UNIT),
        excess=paired_change(*every, *fresh, confidence=confidence),
        per_lag=slope_of_means(lag_E.astype(float), cluster_E, tv_E, count_E, confidence=confidence),
        tolerance=tolerance,
        passed_at=min(beyond) if beyond else None,
        within_steps=_excess(of_stale.value, alike),
        alike=alike,
        remark=remark,
    )


def _at_like_conditions(cells: CellSums, confidence: float) -> tuple[Interval, str | None]:
    """(Mean TV of tokens with a lag over that of tokens at lag 0, with what else goes with the lag held fixed; what
    that is)."""
    key_E, sum_EF = cells.rows()
    of_E = (key_E["lag"] != UNKNOWN) & (sum_EF[:, CELL_IMPURITY] > 0)
    stale_E, sum_EF = key_E["lag"][of_E] != 0, sum_EF[of_E]
    factors = {name: levels(key_E[name][of_E]) for name in _FACTORS}
    if not stale_E.any() or stale_E.all():
        return Interval(None, None, None, confidence, len(stale_E), 0, "no-overlap"), None
    shares = {
        _FACTORS[name]: explained_share(stale_E, [level_E], sum_EF[:, CELL_TOKENS])
        for name, level_E in factors.items()
    }
    unlike = [f"{name} ({share(part)})" for name, part in shares.items() if part >= _UNBALANCED]
    found = rate_ratio(
        stale_E,
        list(factors.values()),
        levels(key_E["prompt"][of_E]),
        sum_EF[:, CELL_TV],
        sum_EF[:, CELL_IMPURITY],
        confidence=confidence,
    )
    goes_with = f"Lag goes with {', '.join(unlike) or 'several conditions together'}"
    if found.overlap < LEAST_OVERLAP:
        return found.ratio, f"{goes_with}: what it does cannot be told from what they do."
    return found.ratio, f"{goes_with}: the excess over all tokens may be theirs." if unlike else None


def _excess(mean: float | None, ratio: Interval) -> Interval | None:
    """What of a mean is beyond that of tokens whose mean it is `ratio` times."""
    if mean is None or ratio.value is None:
        return None
    value, low, high = (
        None if end is None else mean * (1 - 1 / end) for end in (ratio.value, ratio.low, ratio.high)
    )
    return Interval(value, low, high, ratio.confidence, ratio.n, ratio.clusters, ratio.method)
