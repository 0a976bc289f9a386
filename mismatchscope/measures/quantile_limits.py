"""Distribution-free confidence limits of a quantile, when the tokens of one prompt are not independent.

Shape suffixes: N tokens, S sequences, C clusters (prompts), T thresholds.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from . import kernel
from .accumulators import ClusterExceedance, Clusters

Array = np.ndarray
View = Literal["value", "negated", "absolute"]
"""Of which the quantile is: of the values that were counted, of -x, or of |x|."""

GROUPS = 4096
# Two thresholds an octave: a design effect changes slowly along a distribution.
_FIRST, _LAST = -80, 8
_ROOT = math.sqrt(2)
_MAGNITUDES = tuple(
    math.ldexp(_ROOT if half_octave % 2 else 1.0, half_octave // 2) for half_octave in range(_FIRST, _LAST + 1)
)
POSITIVE = _MAGNITUDES
SIGNED = (*(-magnitude for magnitude in reversed(_MAGNITUDES)), 0.0, *_MAGNITUDES)


class ClusterShares:
    """How many values of each cluster lie beyond fixed thresholds: where the spread of a share comes from.

    More than `GROUPS` clusters are counted in that many groups, by their labels: the spread of sums over groups of
    independent clusters is that of the clusters, and memory stays bounded.
    """

    def __init__(self, *, signed: bool = False) -> None:
        self._signed = signed
        self._taus = SIGNED if signed else POSITIVE
        self._exceedance = ClusterExceedance(self._taus)
        self._clusters: Clusters | None = Clusters()  # None: in groups

    def add(self, label_S: Array, length_S: Array, value_N: Array) -> None:
        """Take in the values of sequences; `length_S` each, of clusters with these labels. NaN is "not seen"."""
        if not value_N.size:
            return
        row_S = self._rows(label_S)
        library = kernel.library()
        if library is not None:
            offsets_S1 = np.concatenate([[0], np.cumsum(length_S, dtype=np.int64)])
            count_CB = self._exceedance.counts(int(row_S.max()) + 1)
            library.half_octave_counts(
                *(kernel.address(np.ascontiguousarray(value_N)), kernel.address(offsets_S1, np.int64)),
                *(kernel.address(row_S, np.int64), len(row_S), int(self._signed), _FIRST, len(_MAGNITUDES)),
                kernel.address(count_CB, np.int64),
            )
            return
        if np.isnan(value_N).any():
            seen_N = ~np.isnan(value_N)
            length_S = np.bincount(np.repeat(np.arange(len(length_S)), length_S)[seen_N], minlength=len(length_S))
            value_N = value_N[seen_N]
        bin_N = _signed_bins(value_N) if self._signed else _thresholds_below(value_N)
        self._exceedance.add_bins(row_S, length_S, bin_N)

    def merge(self, other: ClusterShares) -> None:
        """Take in what another one has seen."""
        if other._clusters is None:
            self._group()
            rows_C = np.arange(GROUPS)
        else:
            rows_C = self._rows(other._clusters.labels)
        self._exceedance.merge(other._exceedance, rows_C)

    def _rows(self, label_S: Array) -> Array:
        if self._clusters is not None:
            rows_S = self._clusters.rows(label_S)
            if len(self._clusters) <= GROUPS:
                return rows_S
            self._group()
        return label_S % GROUPS

    def _group(self) -> None:
        """From here on by groups, what has been counted too."""
        if self._clusters is None:
            return
        group_C, counted = self._clusters.labels % GROUPS, self._exceedance
        self._clusters, self._exceedance = None, ClusterExceedance(self._taus)
        self._exceedance.merge(counted, group_C)

    def levels(self, level: float, *, view: View = "value", confidence: float = 0.95) -> tuple[float, float] | None:
        """The two levels whose sample quantiles are the confidence limits of the quantile at `level`.

        The share of values up to a threshold has a Clopper–Pearson interval for as many independent values as would
        be as noisy: n over the design effect of that share, less what few clusters cost (Korn and Graubard 1998,
        "Confidence intervals for proportions with small expected number of positive counts"). Inverting it bounds
        the quantile (Woodruff 1952, "Confidence intervals for medians and other position measures").

        None with fewer than two clusters.
        """
        from scipy.special import betaincinv, ndtri, stdtrit

        count_C, beyond_CT = self._beyond(view)
        clusters, n = count_C.size, float(count_C.sum())
        if clusters < 2:
            return None
        share_T = beyond_CT.sum(axis=0) / n
        at = int(np.argmin(np.abs(share_T - (1 - level))))
        share = float(share_T[at])
        residual_C = beyond_CT[:, at] - share * count_C
        independent = share * (1 - share) * n
        # Where the grid has no threshold inside the values, each prompt counts as one.
        effect = (
            clusters / (clusters - 1) * float(residual_C @ residual_C) / independent
            if independent
            else float(count_C @ count_C) / n
        )
        tail = (1 - confidence) / 2
        effective = n / max(1.0, effect) * (ndtri(1 - tail) / stdtrit(clusters - 1, 1 - tail)) ** 2
        below = level * effective
        return float(betaincinv(below, effective - below + 1, tail)), float(
            betaincinv(below + 1, effective - below, 1 - tail)
        )

    def _beyond(self, view: View) -> tuple[Array, Array]:
        """(values of each cluster [C], how many of them lie beyond each threshold [C, T]) of clusters with any."""
        count_C, beyond_CT = self._exceedance.totals()
        if view == "value":
            return count_C, beyond_CT
        if not self._signed:
            raise ValueError("these values were counted without their sign")
        below_CT = count_C[:, None] - beyond_CT  # at or below a threshold
        if view == "negated":
            return count_C, below_CT
        half = len(_MAGNITUDES)
        return count_C, beyond_CT[:, half + 1 :] + below_CT[:, :half][:, ::-1]


# float64: 52 bits of mantissa, below an exponent that is 1023 at 1.
_MANTISSA, _UNIT = 52, 1023
_ROOT_BITS = np.float64(_ROOT).view(np.int64) & ((1 << _MANTISSA) - 1)


def _thresholds_below(value_N: Array, *, or_equal: bool = False) -> Array:
    """How many of `_MAGNITUDES` are smaller than each value ≥ 0 (or equal to it), int64 [N].

    What a binary search would find, read off the bits of the value in a tenth of the time: positive floats are in
    the order of their bits.
    """
    bits_N = np.ascontiguousarray(value_N, dtype=np.float64).view(np.int64) - (0 if or_equal else 1)
    bits_N = np.maximum(bits_N, 0)
    half_octave_N = (bits_N >> _MANTISSA) - _UNIT
    half_octave_N *= 2
    half_octave_N += (bits_N & ((1 << _MANTISSA) - 1)) >= _ROOT_BITS
    half_octave_N -= _FIRST - 1
    return np.clip(half_octave_N, 0, len(_MAGNITUDES), out=half_octave_N)


def _signed_bins(value_N: Array) -> Array:
    """The bin of each value between the thresholds of `SIGNED`, as `ClusterExceedance` counts them."""
    half = len(_MAGNITUDES)
    magnitude_N = np.abs(value_N)
    above_N = half + 1 + _thresholds_below(magnitude_N)
    below_N = half - _thresholds_below(magnitude_N, or_equal=True)
    return np.where(value_N > 0, above_N, np.where(value_N < 0, below_N, half))
