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
from .weights import weight_figures

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class LengthBins:
    """`bin_S` is the bin of each sequence; bin b holds lengths `shortest_B[b]` up to `longest_B[b]`, inclusive."""

    bin_S: Array
    shortest_B: Array
    longest_B: Array


def sequence_measures(sums: SequenceSums, *, on_policy: bool, exact: bool, confidence: float) -> SequenceMeasures:
    """The figures of whole responses. Their TV and KL are left out where the tokens are not μ's own (`on_policy`).

    `exact` says that every state was seen whole, so that its KL and TV are neither estimates nor bounds.
    """
    kl_S, estimator = sums.kl, "Σ_t k3 over sampled tokens, KL less leak"
    if sums.kl_known:
        estimator = "Σ_t of μ k3 over the top-k and k3 of sampled tokens beyond, KL less leak, partly Rao–Blackwell"
    if exact:
        estimator = "Σ_t KL(s_t), Rao–Blackwell"
    end = "exact" if exact else "upper end"
    tv_known = not np.isnan(sums.sum_tv).any()

    def of(values_S: Array, estimator: str, bounds: tuple[float, float] = ANY) -> Statistic:
        return summarise(values_S, sums.prompt_id, estimator=estimator, confidence=confidence, bounds=bounds)

    kl = of(kl_S, estimator, NONNEGATIVE) if on_policy or exact else None
    weights = weight_figures(sums.log_ratio, sums.prompt_id, confidence=confidence)
    return SequenceMeasures(
        tv=mean_alone(of(sums.shortfall, "E(1−ρ(y))₊, unbiased", UNIT)) if on_policy else None,
        tv_bound=of(sums.sum_tv, f"Σ_t TV(s_t), {end}: its mean bounds the sequence TV", NONNEGATIVE)
        if tv_known
        else None,
        kl=kl if kl is None or exact else mean_alone(kl),
        k1=of(-sums.log_ratio, "Σ_t k1 = −log ρ(y), sampled tokens"),
        log_ratio=of(sums.log_ratio, "log ρ(y) = Σ_t log ρ_t"),
        ratio=of(sums.ratio, "ρ(y)", NONNEGATIVE),
        geometric_ratio=of(sums.geometric_ratio, "ρ(y)^(1/T)", NONNEGATIVE),
        max_tv=of(sums.max_tv, f"max_t TV(s_t), {end}", UNIT) if tv_known else None,
        ess_fraction=weights.ess_fraction,
        ess_fraction_low=weights.low,
        ess_fraction_high=weights.high,
        chi2=weights.chi2,
        pareto_k=weights.pareto_k,
        pareto_k_limit=weights.pareto_k_limit,
        weights_reason=weights.reason,
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
        weights = weight_figures(sums.log_ratio[inside_S], sums.prompt_id[inside_S], confidence=confidence)

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
                kl=mean(kl_S, NONNEGATIVE) if on_policy else None,
                log_ratio=mean(sums.log_ratio),
                ess_fraction=weights.ess_fraction,
                ess_fraction_low=weights.low,
                ess_fraction_high=weights.high,
                weights_reason=weights.reason,
            )
        )
    return tuple(found)


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
