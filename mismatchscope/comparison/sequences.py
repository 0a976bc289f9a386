"""Figures a state -> the sequence block of the report, overall and by length."""

from __future__ import annotations

import math

import numpy as np

from ..measures import sequence
from ..measures.intervals import clustered_mean
from ..measures.tail import pareto_k
from ..reports.document import LengthBin, SequenceMeasures
from .states import StateMeasures
from .statistics import NONNEGATIVE, UNIT, mean_of, statistic


def sequence_measures(measures: StateMeasures, *, on_policy: bool, confidence: float) -> SequenceMeasures:
    """The sequence block. TV and KL of whole sequences are left out where the tokens are not μ's own.

    KL_seq is the Rao–Blackwell sum of per-state KLs where every state was seen whole, else Σ_t k1.
    """
    whole = measures.exact_N.all()
    found = sequence.sequence_measures(
        measures.sampled.log_ratio,
        measures.offsets_S1,
        kl_T=measures.columns["kl"] if whole else None,
        tv_T=measures.tv_upper_N if measures.bounded else None,
    )
    prompt_S = measures.prompt_id_N[measures.offsets_S1[:-1]]
    kl_S = found.sum_kl if found.sum_kl is not None else found.sum_k1

    def of(values: np.ndarray | None, estimator: str, bounds=(-math.inf, math.inf), mean_only=False):
        if values is None:
            return None
        return statistic(values, prompt_S, estimator, confidence=confidence, bounds=bounds, mean_only=mean_only)

    weights = sequence.importance_weights(found.log_ratio)
    end = "exact" if whole else "upper end"
    return SequenceMeasures(
        tv=of(found.shortfall, "E(1−ρ(y))₊, unbiased", UNIT, mean_only=True) if on_policy else None,
        tv_bound=of(found.sum_tv, f"Σ_t TV(s_t), {end}: its mean bounds the sequence TV", NONNEGATIVE),
        kl=of(kl_S, "Σ_t KL(s_t), Rao–Blackwell" if whole else "Σ_t k1, unbiased") if on_policy or whole else None,
        log_ratio=of(found.log_ratio, "log ρ(y) = Σ_t log ρ_t"),
        ratio=of(found.ratio, "ρ(y)", NONNEGATIVE),
        geometric_ratio=of(found.geometric_ratio, "ρ(y)^(1/T)", NONNEGATIVE),
        max_tv=of(found.max_tv, f"max_t TV(s_t), {end}", UNIT),
        ess_fraction=_finite(weights.ess_fraction),
        chi2=weights.chi2,
        pareto_k=pareto_k(found.log_ratio),
        by_length=_by_length(found, kl_S, prompt_S, on_policy=on_policy, confidence=confidence),
    )


def _by_length(
    found: sequence.SequenceMeasures, kl_S: np.ndarray, prompt_S: np.ndarray, *, on_policy: bool, confidence: float
) -> list[LengthBin]:
    """Log ratios add up over a response, so every sequence figure depends on its length."""
    bins = sequence.length_bins(found.length)
    blocks = []
    for index, (low, high) in enumerate(zip(bins.shortest_B, bins.longest_B, strict=True)):
        inside = bins.bin_S == index

        def mean(values: np.ndarray, bounds=(-math.inf, math.inf), inside=inside):
            return mean_of(clustered_mean(values[inside], prompt_S[inside], confidence=confidence, bounds=bounds))

        blocks.append(
            LengthBin(
                low=int(low),
                high=int(high),
                sequences=int(inside.sum()),
                tv=mean(found.shortfall, UNIT) if on_policy else None,
                kl=mean(kl_S) if on_policy else None,
                log_ratio=mean(found.log_ratio),
                ess_fraction=_finite(sequence.importance_weights(found.log_ratio[inside]).ess_fraction),
            )
        )
    return blocks


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
