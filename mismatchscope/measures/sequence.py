"""Whole responses: what per-token measures add up to over a sequence.

Legend: T = sampled tokens of all sequences, one after another; S = sequences; S1 = S + 1 boundaries, so that
sequence s is tokens offsets[s] up to offsets[s + 1]. Log ratios are log pi - log mu, in nats.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mismatchscope.errors import EmptyComparisonError
from mismatchscope.measures.sampled import shortfall

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class SequenceMeasures:
    """One value per sequence, [S], float64 except `length`. None: the tokens it is made of were not given."""

    length: Array
    """Tokens (int64)."""
    log_ratio: Array
    """log rho(y) = sum of the tokens' d; -inf once a token is outside pi's support."""
    ratio: Array
    """rho(y); infinite where it passes 1e308, so work with `log_ratio`."""
    geometric_ratio: Array
    """rho(y)^(1 / length), the sequence ratio of GSPO."""
    shortfall: Array
    """(1 - rho(y))_+, in [0, 1]; its mean is unbiased for the TV of whole sequences."""
    min_log_ratio: Array
    """The worst token on the low side."""
    max_log_ratio: Array
    sum_k1: Array
    """-log rho(y); its mean is unbiased for the KL(mu || pi) of whole sequences, with a large variance."""
    sum_kl: Array | None
    """Sum over states of KL(mu || pi): the same mean with less variance (Rao-Blackwell)."""
    sum_tv: Array | None
    """Sum over states of TV; its mean is an upper bound of the TV of whole sequences."""
    max_tv: Array | None


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


def sequence_measures(
    log_ratio_T: ArrayLike,
    offsets_S1: ArrayLike,
    *,
    kl_T: ArrayLike | None = None,
    tv_T: ArrayLike | None = None,
) -> SequenceMeasures:
    """Per-sequence measures from each token's log ratio and, where known, its state's KL(mu || pi) and TV.

    Raises:
        EmptyComparisonError: there are no sequences, or one of them has no tokens.
        ValueError: the boundaries do not cover the tokens in order, or a value is NaN or a log ratio is +inf.
    """
    offsets_S1 = checked_offsets(offsets_S1)
    log_ratio_T = checked_tokens(log_ratio_T, offsets_S1, "log_ratio")
    if (infinite_T := np.isposinf(log_ratio_T)).any():
        raise ValueError(f"log_ratio at token {int(np.argmax(infinite_T))} is +inf: mu cannot have sampled it")
    kl_T = None if kl_T is None else checked_tokens(kl_T, offsets_S1, "kl")
    tv_T = None if tv_T is None else checked_tokens(tv_T, offsets_S1, "tv")

    starts_S, length_S = offsets_S1[:-1], np.diff(offsets_S1)
    log_ratio_S = np.add.reduceat(log_ratio_T, starts_S)
    with np.errstate(over="ignore"):
        ratio_S = np.exp(log_ratio_S)
    return SequenceMeasures(
        length=length_S,
        log_ratio=log_ratio_S,
        ratio=ratio_S,
        geometric_ratio=np.exp(log_ratio_S / length_S),
        shortfall=shortfall(log_ratio_S),
        min_log_ratio=np.minimum.reduceat(log_ratio_T, starts_S),
        max_log_ratio=np.maximum.reduceat(log_ratio_T, starts_S),
        sum_k1=-log_ratio_S,
        sum_kl=None if kl_T is None else np.add.reduceat(kl_T, starts_S),
        sum_tv=None if tv_T is None else np.add.reduceat(tv_T, starts_S),
        max_tv=None if tv_T is None else np.maximum.reduceat(tv_T, starts_S),
    )


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


def checked_offsets(offsets_S1: ArrayLike) -> Array:
    """Boundaries as int64, or the error that `sequence_measures` documents."""
    offsets_S1 = np.asarray(offsets_S1)
    if offsets_S1.ndim != 1 or offsets_S1.size < 2:
        raise EmptyComparisonError("There is no sequence to measure.")
    if offsets_S1.dtype.kind not in "iu" or offsets_S1[0] != 0:
        raise ValueError("sequence boundaries must be integers that start at 0")
    lengths_S = np.diff(offsets_S1.astype(np.int64))
    if (lengths_S < 0).any():
        raise ValueError(f"sequence {int(np.argmax(lengths_S < 0))} ends before it begins")
    if (lengths_S == 0).any():
        raise EmptyComparisonError(f"Sequence {int(np.argmax(lengths_S == 0))} has no tokens.")
    return offsets_S1.astype(np.int64)


def checked_tokens(values_T: ArrayLike, offsets_S1: Array, name: str) -> Array:
    """Per-token values as float64 that fit the boundaries and hold no NaN."""
    values_T = np.asarray(values_T, dtype=np.float64)
    if values_T.shape != (offsets_S1[-1],):
        raise ValueError(f"{name} has shape {values_T.shape}, the boundaries cover {offsets_S1[-1]} tokens")
    if np.isnan(values_T).any():
        raise ValueError(f"{name} at token {int(np.argmax(np.isnan(values_T)))} is NaN")
    return values_T


def _log_mean_exp(log_values_S: Array) -> float:
    largest = log_values_S.max()
    if np.isneginf(largest):
        return float(largest)
    return float(largest + np.log(np.mean(np.exp(log_values_S - largest))))
