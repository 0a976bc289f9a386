"""α₁ = max over states of TV(μ, π): what a finite audit can say about a supremum.

No sample gives a supremum over states. `alpha1` therefore reports, in this order: the largest TV seen,
which bounds α₁ from below; tolerance bounds, which say how large the maximum of most prompts is; the
exceedance curve; and the mean. The prompt is the unit: M_c is the largest TV over the states of prompt c.

Shape suffixes: N tokens (states), C clusters (prompts).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mismatchscope.errors import NotComparableError
from mismatchscope.measures.intervals import (
    Interval,
    cluster_index,
    clustered_mean,
    empirical_bernstein,
    proportion_interval,
    ratio_interval,
    required_clusters,
)
from mismatchscope.measures.summary import sample_quantiles

TAUS = tuple(float(f"{step}e{exponent}") for exponent in range(-6, 0) for step in (1, 2, 5))
TOLERANCE_QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999)
STATE_QUANTILES = (0.5, 0.9, 0.99, 0.999)


@dataclass(frozen=True)
class Tolerance:
    """With `confidence`, at least a fraction `quantile` of prompts has its maximal TV ≤ `value`.

    `value` is None when `n` prompts are too few; `n_needed` would be enough.
    """

    quantile: float
    confidence: float
    value: float | None
    n: int
    n_needed: int


@dataclass(frozen=True)
class Exceedance:
    """Fractions of tokens and of prompts with TV beyond `tau`, each with its upper confidence limit."""

    tau: float
    tokens: float
    tokens_upper: float | None
    prompts: float
    prompts_upper: float


@dataclass(frozen=True)
class StateQuantile:
    """Quantile of TV(s) over visited states, from the lower and from the upper ends."""

    quantile: float
    lower: float | None
    upper: float | None


@dataclass(frozen=True)
class Alpha1:
    """`certified` says whether upper ends were known.

    With them, `tolerance` and the upper limits hold for TV itself; without them they hold only for the
    lower ends that were observed, and TV may lie above. `certified_mean_high` is the empirical-Bernstein
    upper limit of the mean over prompts of the prompt's mean TV.
    """

    observed_max: float
    observed_upper: float | None
    certified: bool
    tolerance: tuple[Tolerance, ...]
    exceedance: tuple[Exceedance, ...]
    mean: Interval
    certified_mean_high: float | None
    state_quantiles: tuple[StateQuantile, ...]


def alpha1(
    lower_N: np.ndarray,
    upper_N: np.ndarray | None,
    cluster_N: np.ndarray,
    *,
    unbiased_N: np.ndarray | None = None,
    confidence: float = 0.95,
    quantiles: tuple[float, ...] = TOLERANCE_QUANTILES,
    taus: tuple[float, ...] = TAUS,
) -> Alpha1:
    """Everything that can be said of α₁ from the visited states.

    `lower_N ≤ TV(s) ≤ upper_N`: both the exact TV under full evidence, the two ends of the top-k interval,
    or binary TV and None where only the sampled token is known.

    The mean's interval runs from the lower limit of the lower ends to the upper limit of the upper ends,
    and its value is the mean of the lower ends; without upper ends `high` is None. `unbiased_N` replaces
    both: per-token values whose expectation is the mean TV, such as (1-ρ)₊ of sampled tokens.

    Raises EmptyComparisonError on no tokens, NotComparableError on NaN, on a TV outside [0, 1], or on a
    lower end above its upper end.
    """
    lower_N = _checked_tv(lower_N)
    upper_N = None if upper_N is None else _checked_tv(upper_N)
    if upper_N is not None and np.any(lower_N > upper_N + 1e-9):
        raise NotComparableError("A lower end of TV lies above its upper end.")
    index_N = cluster_index(cluster_N)
    highest_N = lower_N if upper_N is None else upper_N
    max_C = cluster_max(highest_N, index_N)
    upper_quantiles = (
        sample_quantiles(highest_N, STATE_QUANTILES) if upper_N is not None else [None] * len(STATE_QUANTILES)
    )
    return Alpha1(
        observed_max=float(lower_N.max()),
        observed_upper=None if upper_N is None else float(upper_N.max()),
        certified=upper_N is not None,
        tolerance=tuple(tolerance_bound(max_C, q, confidence=confidence) for q in quantiles),
        exceedance=exceedance_curve(lower_N, upper_N, index_N, taus=taus, confidence=confidence),
        mean=_mean(lower_N, upper_N, unbiased_N, index_N, confidence),
        certified_mean_high=_certified_mean_high(
            upper_N if unbiased_N is None else unbiased_N, index_N, confidence
        ),
        state_quantiles=tuple(
            StateQuantile(q, low, high)
            for q, low, high in zip(
                STATE_QUANTILES, sample_quantiles(lower_N, STATE_QUANTILES), upper_quantiles, strict=True
            )
        ),
    )


def cluster_max(value_N: np.ndarray, cluster_N: np.ndarray) -> np.ndarray:
    """The largest value of every cluster, in the order of the labels."""
    index_N = cluster_index(cluster_N)
    max_C = np.full(int(index_N.max()) + 1, -np.inf)
    np.maximum.at(max_C, index_N, value_N)
    return max_C


def tolerance_bound(max_C: np.ndarray, quantile: float, *, confidence: float = 0.95) -> Tolerance:
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
    lower_N: np.ndarray,
    upper_N: np.ndarray | None,
    cluster_N: np.ndarray,
    *,
    taus: tuple[float, ...] = TAUS,
    confidence: float = 0.95,
) -> tuple[Exceedance, ...]:
    """P(TV(s) > τ) over tokens and P(M > τ) over prompts.

    The fractions count lower ends, so they are certain; the one-sided upper limits count upper ends where
    those are known. Prompts: Clopper–Pearson. Tokens: the upper end of the clustered interval. Where no
    token exceeds τ the prompts' limit stands for the tokens' too: nothing seen says that a prompt which
    does exceed τ would not do so at every token.
    """
    index_N = cluster_index(cluster_N)
    highest_N = lower_N if upper_N is None else upper_N
    count_C = np.bincount(index_N)
    clusters = count_C.size
    curve = []
    for tau in taus:
        hits_C = np.bincount(index_N, weights=highest_N > tau)
        prompts = proportion_interval(int((hits_C > 0).sum()), clusters, confidence=confidence, side="upper")
        certain_C = hits_C if upper_N is None else np.bincount(index_N, weights=lower_N > tau)
        curve.append(
            Exceedance(
                tau=tau,
                tokens=float(certain_C.sum()) / lower_N.size,
                tokens_upper=_tokens_upper(hits_C, count_C, prompts.high, confidence),
                prompts=float((certain_C > 0).mean()),
                prompts_upper=prompts.high,
            )
        )
    return tuple(curve)


def _tokens_upper(hits_C: np.ndarray, count_C: np.ndarray, prompts_upper: float, confidence: float) -> float | None:
    if not hits_C.any():
        return prompts_upper
    if np.array_equal(hits_C, count_C):
        return 1.0
    # The upper end of a two-sided interval at 2c-1 is a one-sided limit at c.
    return ratio_interval(hits_C, count_C, confidence=2 * confidence - 1, bounds=(0.0, 1.0)).high


def _mean(
    lower_N: np.ndarray,
    upper_N: np.ndarray | None,
    unbiased_N: np.ndarray | None,
    index_N: np.ndarray,
    confidence: float,
) -> Interval:
    if unbiased_N is not None:
        return clustered_mean(unbiased_N, index_N, confidence=confidence, bounds=(0.0, 1.0))
    lower = clustered_mean(lower_N, index_N, confidence=confidence, bounds=(0.0, 1.0))
    if upper_N is None:
        high, method = None, "lower-ends-only"
    else:
        upper = clustered_mean(upper_N, index_N, confidence=confidence, bounds=(0.0, 1.0))
        high, method = upper.high, upper.method
    return Interval(lower.value, lower.low, high, confidence, lower.n, lower.clusters, method)


def _certified_mean_high(tv_N: np.ndarray | None, index_N: np.ndarray, confidence: float) -> float | None:
    if tv_N is None:
        return None
    mean_C = np.bincount(index_N, weights=tv_N) / np.bincount(index_N)
    return empirical_bernstein(mean_C, confidence=confidence, side="upper").high


def _checked_tv(tv_N: np.ndarray) -> np.ndarray:
    tv_N = np.asarray(tv_N, dtype=np.float64)
    if np.isnan(tv_N).any():
        raise NotComparableError("A total variation is NaN.")
    if tv_N.size and (tv_N.min() < -1e-9 or tv_N.max() > 1 + 1e-6):
        raise NotComparableError(
            f"Total variation lies in [0, 1]; these values run from {tv_N.min():.3g} to {tv_N.max():.3g}."
        )
    return tv_N
