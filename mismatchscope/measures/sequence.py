"""Whole responses: what per-token measures add up to over a sequence.

Legend: S = sequences, B = bins of length. Log ratios are log pi - log mu, in nats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..errors import EmptyComparisonError
from .intervals import ANY, NONNEGATIVE, UNIT, clustered_mean
from .results import Interval, LengthBin, SequenceMeasures, Statistic
from .sequence_sums import SequenceSums
from .summary import summarise
from .tail import pareto_k

Array = np.ndarray


@dataclass(frozen=True)
class ImportanceWeights:
    """How far the sequence ratios, used as importance weights, are from one. Both before any clamp."""

    ess_fraction: float
    """Effective sample size over S: (sum w)^2 / (S sum w^2), in [1/S, 1]; NaN when every weight is zero."""
    chi2: float
    """Mean of (rho - 1)^2, which is unbiased for chi^2(pi || mu) while pi stays in mu's support."""


@dataclass(frozen=True, eq=False)
class LengthBins:
    """`bin_S` is the bin of each sequence; bin b holds lengths `shortest_B[b]` up to `longest_B[b]`, inclusive."""

    bin_S: Array
    shortest_B: Array
    longest_B: Array


def sequence_measures(sums: SequenceSums, *, on_policy: bool, exact: bool, confidence: float) -> SequenceMeasures:
    """The figures of whole responses. Their TV and KL are left out where the tokens are not μ's own (`on_policy`).

    `exact` says that every state was seen whole, so that its KL and TV are no bounds.
    """
    kl_S, kl_estimator = sums.kl
    end = "exact" if exact else "upper end"
    tv_known = not np.isnan(sums.sum_tv).any()

    def of(values_S: Array, estimator: str, bounds: tuple[float, float] = ANY) -> Statistic:
        return summarise(values_S, sums.prompt_id, estimator=estimator, confidence=confidence, bounds=bounds)

    weights = importance_weights(sums.log_ratio)
    return SequenceMeasures(
        tv=mean_alone(of(sums.shortfall, "E(1−ρ(y))₊, unbiased", UNIT)) if on_policy else None,
        tv_bound=of(sums.sum_tv, f"Σ_t TV(s_t), {end}: its mean bounds the sequence TV", NONNEGATIVE)
        if tv_known
        else None,
        kl=of(kl_S, kl_estimator) if on_policy or exact else None,
        log_ratio=of(sums.log_ratio, "log ρ(y) = Σ_t log ρ_t"),
        ratio=of(sums.ratio, "ρ(y)", NONNEGATIVE),
        geometric_ratio=of(sums.geometric_ratio, "ρ(y)^(1/T)", NONNEGATIVE),
        max_tv=of(sums.max_tv, f"max_t TV(s_t), {end}", UNIT) if tv_known else None,
        ess_fraction=finite(weights.ess_fraction),
        chi2=weights.chi2,
        pareto_k=pareto_k(sums.log_ratio),
        by_length=_by_length(sums, kl_S, on_policy=on_policy, confidence=confidence),
    )


def mean_alone(statistic: Statistic) -> Statistic:
    """For estimators whose single values are not the figure of a state or a response: k3 is no KL of one state."""
    return Statistic(
        statistic.mean,
        statistic.low,
        statistic.high,
        statistic.confidence,
        n=statistic.n,
        clusters=statistic.clusters,
        method=statistic.method,
        estimator=statistic.estimator,
    )


def finite(value: float) -> float | None:
    """None for what could not be computed."""
    return value if math.isfinite(value) else None


def _by_length(sums: SequenceSums, kl_S: Array, *, on_policy: bool, confidence: float) -> tuple[LengthBin, ...]:
    """Log ratios add up over a response, so every sequence figure depends on its length."""
    bins = length_bins(sums.length)
    found = []
    for index, (low, high) in enumerate(zip(bins.shortest_B, bins.longest_B, strict=True)):
        inside_S = bins.bin_S == index

        def mean(values_S: Array, bounds: tuple[float, float] = ANY, inside_S: Array = inside_S) -> Interval:
            return clustered_mean(
                values_S[inside_S], sums.prompt_id[inside_S], confidence=confidence, bounds=bounds
            )

        found.append(
            LengthBin(
                low=int(low),
                high=int(high),
                sequences=int(inside_S.sum()),
                tv=mean(sums.shortfall, UNIT) if on_policy else None,
                kl=mean(kl_S) if on_policy else None,
                log_ratio=mean(sums.log_ratio),
                ess_fraction=finite(importance_weights(sums.log_ratio[inside_S]).ess_fraction),
            )
        )
    return tuple(found)


def importance_weights(log_ratio_S: ArrayLike) -> ImportanceWeights:
    """Effective sample size and chi^2 of the weights exp(log_ratio), summed in log space.

    Nothing overflows on the way; chi2 is infinite only where its value is beyond 1e308. A heavy tail makes
    both unreliable: look at Pareto k before quoting them.

    Raises:
        EmptyComparisonError: there are no weights.
        ValueError: a log ratio is NaN or +inf.
    """
    log_ratio_S = np.asarray(log_ratio_S, dtype=np.float64)
    if log_ratio_S.size == 0:
        raise EmptyComparisonError("There is no sequence to weight.")
    if not (log_ratio_S < np.inf).all():
        raise ValueError(f"log ratio of sequence {int(np.argmin(log_ratio_S < np.inf))} is NaN or +inf")
    with np.errstate(divide="ignore", over="ignore"):  # log 0 where a weight is exactly one
        log_distance_S = np.maximum(log_ratio_S, 0) + np.log(-np.expm1(-np.abs(log_ratio_S)))  # log |rho - 1|
        chi2 = np.exp(_log_mean_exp(2 * log_distance_S))
    if np.isneginf(log_ratio_S).all():
        return ImportanceWeights(ess_fraction=float("nan"), chi2=float(chi2))
    log_ess_fraction = 2 * _log_mean_exp(log_ratio_S) - _log_mean_exp(2 * log_ratio_S)
    return ImportanceWeights(ess_fraction=float(np.exp(log_ess_fraction)), chi2=float(chi2))


def length_bins(length_S: ArrayLike, max_bins: int = 5) -> LengthBins:
    """Bins of about equally many sequences by length; fewer than `max_bins` where lengths repeat, none empty.

    Raises:
        EmptyComparisonError: there are no sequences.
        ValueError: `max_bins` is below one.
    """
    length_S = np.asarray(length_S)
    if length_S.size == 0:
        raise EmptyComparisonError("There is no sequence to bin by length.")
    if max_bins < 1:
        raise ValueError(f"max_bins must be at least 1, not {max_bins}")
    quantiles = np.arange(1, max_bins + 1) / max_bins
    longest_B = np.unique(np.quantile(length_S, quantiles, method="inverted_cdf"))  # lengths that occur
    bin_S = np.searchsorted(longest_B, length_S)
    shortest_B = np.array([length_S[bin_S == b].min() for b in range(len(longest_B))])
    return LengthBins(bin_S=bin_S, shortest_B=shortest_B, longest_B=longest_B)


def _log_mean_exp(log_values_S: Array) -> float:
    largest = log_values_S.max()
    if np.isneginf(largest):
        return float(largest)
    return float(largest + np.log(np.mean(np.exp(log_values_S - largest))))
