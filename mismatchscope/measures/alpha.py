"""α₁ = max over states of TV(μ, π): what a finite audit can say about a supremum.

No sample gives a supremum over states. What is reported, in this order: the largest TV seen, which bounds α₁ from
below; tolerance bounds, which say how large the maximum of most prompts is; the exceedance curve; and the mean. The
prompt is the unit: M_c is the largest TV over the states of prompt c.

Shape suffixes: N tokens (states), S sequences, C clusters (prompts), T thresholds.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..errors import EmptyComparisonError, NotComparableError
from .accumulators import ClusterExceedance, Clusters, ClusterSums
from .intervals import (
    UNIT,
    empirical_bernstein,
    proportion_interval,
    required_clusters,
    unseen_share,
)
from .results import Alpha, Exceedance, Interval, TailExtrapolation, Tolerance
from .share_limit import share_upper_limits
from .tail import tail_extrapolation

Array = np.ndarray

TAUS = tuple(float(f"{step}e{exponent}") for exponent in range(-6, 0) for step in (1, 2, 5))
TOLERANCE_QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999)
NO_UPPER_ENDS = "not every visited state's TV is bounded from above"


class TotalVariation:
    """Accumulator of TV over states: of its lower ends, of its upper ends, or of exact TV."""

    def __init__(self, taus: tuple[float, ...] = TAUS) -> None:
        self.sums = ClusterSums()
        self.exceedance = ClusterExceedance(taus)

    @classmethod
    def of(cls, tv_N: Array, cluster_N: Array, taus: tuple[float, ...] = TAUS) -> TotalVariation:
        """Filled at once, from one value a state. Raises as `add` does, and `EmptyComparisonError` for no state."""
        if not len(tv_N):
            raise EmptyComparisonError("There are no tokens to measure.")
        tv = cls(taus)
        rows = Clusters().rows(cluster_N)
        tv.add(rows, np.arange(len(tv_N)), np.asarray(tv_N, dtype=np.float64))
        return tv

    def add(self, row_S: Array, start_S: Array, tv_N: Array) -> None:
        """TVs of sequences that begin at `start_S` and belong to the clusters at `row_S`.

        Raises NotComparableError on NaN and on a TV outside [0, 1].
        """
        ends = _checked_range(tv_N)
        self.sums.add_sums(row_S, np.add.reduceat(tv_N, start_S), np.diff(start_S, append=tv_N.size), *ends)
        self.exceedance.add(row_S, start_S, tv_N)

    def merge(self, other: TotalVariation, row_C: Array) -> None:
        self.sums.merge(other.sums, row_C)
        self.exceedance.merge(other.exceedance, row_C)

    @property
    def largest(self) -> float:
        return self.sums.largest


def alpha_of(
    lower: TotalVariation,
    upper: TotalVariation | None,
    *,
    mean_of: ClusterSums | None = None,
    confidence: float = 0.95,
    tail: bool = False,
) -> Alpha:
    """Everything that can be said of α from the visited states.

    `lower` has TV's lower ends and `upper` its upper ends: both the exact TV under full evidence, the two ends of
    the top-k interval, or binary TV and None where not every state is bounded from above. Without upper ends
    nothing is claimed from above: tolerance bounds, upper limits and the tail are None, and shares are lower
    bounds.

    The mean's interval runs from the lower limit of the lower ends to the upper limit of the upper ends, and its
    value is the mean of the lower ends; without upper ends `high` is None. `mean_of` replaces both: values whose
    expectation is the mean TV, such as (1-ρ)₊ of sampled tokens.
    """
    _, count_C = lower.sums.by_cluster()
    return Alpha(
        observed_max=lower.largest,
        observed_upper=None if upper is None else upper.largest,
        mean=_mean(lower.sums, None if upper is None else upper.sums, mean_of, confidence),
        prompt_mean=_prompt_mean(lower.sums, None if upper is None else upper.sums, mean_of, confidence),
        tolerance=_tolerance(upper, count_C.size, confidence),
        exceedance=exceedance_curve(lower, upper, confidence=confidence),
        unseen_share=unseen_share(count_C.size, confidence),
        tail=_tail(upper, confidence) if tail else None,
    )


def _tolerance(upper: TotalVariation | None, n: int, confidence: float) -> tuple[Tolerance, ...]:
    if upper is None:
        return tuple(
            Tolerance(q, confidence, None, n, required_clusters(q, confidence), NO_UPPER_ENDS)
            for q in TOLERANCE_QUANTILES
        )
    max_C, _ = upper.exceedance.seen()
    return tuple(tolerance_bound(max_C, q, confidence=confidence) for q in TOLERANCE_QUANTILES)


def _tail(upper: TotalVariation | None, confidence: float) -> TailExtrapolation:
    if upper is None:
        return TailExtrapolation(confidence=confidence, reason=NO_UPPER_ENDS)
    return tail_extrapolation(upper.exceedance.seen()[0], confidence=confidence)


def tolerance_bound(max_C: Array, quantile: float, *, confidence: float = 0.95) -> Tolerance:
    """Distribution-free upper tolerance bound: the lowest order statistic that is high enough.

    With n prompts, P(F(M_(r)) ≥ q) = P(Binomial(n, q) ≤ r-1) whatever the distribution (Wilks 1941), at
    least that much for distributions with ties. It is a statement about a fresh prompt, sampled and
    audited as these were.
    """
    from scipy.special import bdtr

    n = max_C.size
    n_needed = required_clusters(quantile, confidence)
    if n < n_needed:
        return Tolerance(quantile, confidence, None, n, n_needed)
    below_C = np.arange(n)  # r-1 for r = 1 … n
    rank = int(np.argmax(bdtr(below_C, n, quantile) >= confidence))
    return Tolerance(quantile, confidence, float(np.partition(max_C, rank)[rank]), n, n_needed)


def exceedance_curve(
    lower: TotalVariation, upper: TotalVariation | None, *, confidence: float = 0.95
) -> tuple[Exceedance, ...]:
    """P(TV(s) > τ) over tokens and P(M > τ) over prompts.

    Lower ends beyond τ are certain, and upper ends that are not are too: where both count the same the share is
    known, else it is at least that of the lower ends. The one-sided upper limits count upper ends, and are None
    without them. Prompts: Clopper–Pearson. Tokens: `share_upper_limits`.
    """
    _, count_C = lower.sums.by_cluster()
    _, certain_CT = lower.exceedance.seen()
    possible_CT = None if upper is None else upper.exceedance.seen()[1]
    limit_T = None if possible_CT is None else share_upper_limits(possible_CT, count_C, confidence=confidence)
    curve = []
    for place, tau in enumerate(lower.exceedance.taus):
        certain_C = certain_CT[:, place]
        point = Exceedance(
            tau=tau,
            tokens_lower=float(certain_C.sum()) / int(count_C.sum()),
            prompts_lower=float((certain_C > 0).mean()),
        )
        if possible_CT is not None and limit_T is not None:
            possible_C = possible_CT[:, place]
            prompts = proportion_interval(
                int((possible_C > 0).sum()), count_C.size, confidence=confidence, side="upper"
            )
            same_tokens = possible_C.sum() == certain_C.sum()
            same_prompts = np.array_equal(possible_C > 0, certain_C > 0)
            point = replace(
                point,
                tokens=point.tokens_lower if same_tokens else None,
                tokens_upper=float(limit_T[place]),
                prompts=point.prompts_lower if same_prompts else None,
                prompts_upper=prompts.high,
            )
        curve.append(point)
    return tuple(curve)


def _mean(
    lower: ClusterSums, upper: ClusterSums | None, mean_of: ClusterSums | None, confidence: float
) -> Interval:
    if mean_of is not None:
        return mean_of.interval(confidence=confidence, bounds=UNIT)
    low = lower.interval(confidence=confidence, bounds=UNIT)
    if upper is None:
        return Interval(low.value, low.low, None, confidence, low.n, low.clusters, "lower-ends-only")
    high = upper.interval(confidence=confidence, bounds=UNIT)
    return Interval(low.value, low.low, high.high, confidence, low.n, low.clusters, high.method)


def _prompt_mean(
    lower: ClusterSums, upper: ClusterSums | None, mean_of: ClusterSums | None, confidence: float
) -> Interval:
    """The mean over prompts of the prompt's mean TV, every prompt weighing the same."""
    if upper is None and mean_of is not None:
        return empirical_bernstein(_by_prompt(mean_of), confidence=confidence)
    low = empirical_bernstein(_by_prompt(lower), confidence=confidence)
    if upper is None:
        return replace(low, value=None, high=None, method="lower-ends-only")
    high = empirical_bernstein(_by_prompt(upper), confidence=confidence)
    value = None if mean_of is None else float(_by_prompt(mean_of).mean())
    return replace(low, value=low.value if low.value == high.value else value, high=high.high)


def _by_prompt(sums: ClusterSums) -> Array:
    sum_C, count_C = sums.by_cluster()
    return sum_C / count_C


def check_ends(lower_N: Array, upper_N: Array | None) -> None:
    """Raise NotComparableError for a lower end of TV above its upper end (NaN: there is none)."""
    if upper_N is not None and np.any(lower_N > upper_N + 1e-9):
        raise NotComparableError("A lower end of TV lies above its upper end.")


def _checked_range(tv_N: Array) -> tuple[float, float]:
    """The smallest and the largest of some TVs."""
    low, high = float(tv_N.min()), float(tv_N.max())
    if np.isnan(low):
        raise NotComparableError("A total variation is NaN.")
    if low < -1e-9 or high > 1 + 1e-6:
        raise NotComparableError(f"Total variation lies in [0, 1]; these values run from {low:.3g} to {high:.3g}.")
    return low, high
