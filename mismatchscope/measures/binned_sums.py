"""Sums over runs of sampled tokens, by bins of log μ: what every table of a log is made of, in one pass.

`binned_sums.c` reads both columns once; without a C compiler the tokens are sorted by bin for `token_sums`.

Legend: N = sampled tokens; U = segments, U1 = U + 1 boundaries; B = bins; F = figures. d = log π − log μ is log ρ.
"""

from __future__ import annotations

import numpy as np

from . import kernel
from .token_sums import token_sums

Array = np.ndarray

TOKENS, TV, KL, LOG_RATIO, ABS, RATIO, IMPURITY = range(7)
"""What is summed: 1, (1 − ρ)₊, k3, d, |d|, ρ and 1 − μ(a). Under μ means of the second and third are unbiased for
TV and KL, and that of the last for the Gini impurity 1 − Σ μ², which says how uncertain the states are."""
FIGURES = 7


def binned_sums(logp_mu_N: Array, logp_pi_N: Array, offsets_U1: Array, edge_E: Array) -> tuple[Array, Array]:
    """(Sums [U, B, F], largest |μ(a) − π(a)| [U, B], −inf where a bin has no token) of adjacent float64 columns.

    Segments are not empty and cover all tokens, which have legal log-probs. A token's bin is the number of the
    rising edges at or below its log μ.
    """
    library = kernel.library()
    if library is None:
        return _by_sorting(logp_mu_N, logp_pi_N, offsets_U1, edge_E)
    segments, bins = len(offsets_U1) - 1, len(edge_E) + 1
    mu_N, pi_N, edge_E = (np.ascontiguousarray(each, np.float64) for each in (logp_mu_N, logp_pi_N, edge_E))
    offsets_U1 = np.ascontiguousarray(offsets_U1, np.int64)
    sum_UBF, max_UB = np.empty((segments, bins, FIGURES)), np.empty((segments, bins))
    arrays = (each.ctypes.data for each in (mu_N, pi_N, offsets_U1))
    library.binned_sums(*arrays, segments, edge_E.ctypes.data, len(edge_E), sum_UBF.ctypes.data, max_UB.ctypes.data)
    return sum_UBF, max_UB


def _by_sorting(logp_mu_N: Array, logp_pi_N: Array, offsets_U1: Array, edge_E: Array) -> tuple[Array, Array]:
    segments, bins = len(offsets_U1) - 1, len(edge_E) + 1
    bin_N = np.searchsorted(edge_E, logp_mu_N, side="right")
    order_N = np.argsort(bin_N, kind="stable")
    lengths = [np.add.reduceat(bin_N == each, offsets_U1[:-1], dtype=np.int64) for each in range(bins)]
    sums = token_sums(logp_mu_N[order_N], logp_pi_N[order_N], np.append(0, np.cumsum(lengths)))
    columns = (
        sums.tokens,
        sums.shortfall,
        sums.k3,
        sums.log_ratio,
        sums.abs_logprob_diff,
        sums.ratio,
        sums.tokens - sums.prob_mu,
    )
    sum_UBF = np.stack(columns, axis=-1).reshape(bins, segments, FIGURES).swapaxes(0, 1)
    return sum_UBF, sums.largest_abs_prob_diff.reshape(bins, segments).T
