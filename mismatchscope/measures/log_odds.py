"""Sums of the log-odds of sampled tokens under both policies, sequence by sequence; `log_odds.c` in numpy, too.

Shapes: N tokens, M of them that are not nearly certain, S sequences.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from . import kernel

Array = np.ndarray

COLUMNS = ("odds_mean", "odds_difference", "odds_mean_square", "odds_product", "odds_difference_square", "scaled")
"""M, D, M², M·D, D², and (log ρ / (1 − p))² of the tokens that are not nearly certain."""

# The log-odds of nearly certain tokens are all rounding.
_CERTAIN = -1e-3
# Rounding moves log p by a multiple of 1 − p; above this probability the quotient is all rounding of log p itself.
_SCALED_BELOW = 0.9

_RESULT = np.dtype(
    [
        ("tokens", np.float64),
        *((name, np.float64) for name in COLUMNS[:-1]),
        ("scaled_tokens", np.float64),
        ("scaled", np.float64),
        ("smallest", np.float64, 6),
        ("largest", np.float64, 6),
    ]
)
"""The layout of the C struct."""


class OddsSums(NamedTuple):
    """Of one of `COLUMNS`: its sum and its number of values of each sequence, and its extremes."""

    sum_S: Array
    count_S: Array
    smallest: float
    largest: float


def log_odds_sums(logp_mu_N: Array, logp_pi_N: Array, offsets_S1: Array) -> dict[str, OddsSums]:
    """By the names of `COLUMNS`; values that are NaN or −inf under π are left out, as nearly certain ones are."""
    library = kernel.library()
    if library is None:
        return _sums_by_numpy(logp_mu_N, logp_pi_N, offsets_S1)
    table_S = np.empty(len(offsets_S1) - 1, _RESULT)
    library.log_odds_sums(
        *(kernel.address(np.ascontiguousarray(each)) for each in (logp_mu_N, logp_pi_N)),
        *(kernel.address(offsets_S1, np.int64), len(table_S), _CERTAIN, _SCALED_BELOW, table_S.ctypes.data),
    )
    smallest, largest = table_S["smallest"].min(axis=0).tolist(), table_S["largest"].max(axis=0).tolist()
    counts = [table_S["tokens"]] * 5 + [table_S["scaled_tokens"]]
    return {
        name: OddsSums(table_S[name], counts[at].astype(np.int64), smallest[at], largest[at])
        for at, name in enumerate(COLUMNS)
    }


def _sums_by_numpy(logp_mu_N: Array, logp_pi_N: Array, offsets_S1: Array) -> dict[str, OddsSums]:
    sequences = len(offsets_S1) - 1
    seen_N = np.isfinite(logp_pi_N) & (logp_mu_N < _CERTAIN) & (logp_pi_N < _CERTAIN)
    logp_mu_M, logp_pi_M = logp_mu_N[seen_N], logp_pi_N[seen_N]
    sequence_M = np.repeat(np.arange(sequences), np.diff(offsets_S1))[seen_N]
    p_mu_M, p_pi_M = np.exp(logp_mu_M), np.exp(logp_pi_M)
    odds_mu_M, odds_pi_M = logp_mu_M - np.log1p(-p_mu_M), logp_pi_M - np.log1p(-p_pi_M)
    mean_M, difference_M = (odds_mu_M + odds_pi_M) / 2, odds_pi_M - odds_mu_M
    p_M = np.sqrt(p_mu_M * p_pi_M)
    scaled_M = p_M < _SCALED_BELOW
    square_M = ((logp_pi_M - logp_mu_M)[scaled_M] / (1 - p_M[scaled_M])) ** 2
    columns = (mean_M, difference_M, mean_M**2, mean_M * difference_M, difference_M**2)
    found = {}
    for name, value_M, of_M in zip(
        COLUMNS, (*columns, square_M), (*[sequence_M] * 5, sequence_M[scaled_M]), strict=True
    ):
        found[name] = OddsSums(
            np.bincount(of_M, weights=value_M, minlength=sequences),
            np.bincount(of_M, minlength=sequences),
            float(value_M.min(initial=np.inf)),
            float(value_M.max(initial=-np.inf)),
        )
    return found
