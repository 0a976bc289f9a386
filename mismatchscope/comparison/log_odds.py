"""The log-odds of the sampled tokens under both policies: how they differ tells rounding from a temperature.

With p_μ and p_π the probabilities of a sampled token, its log-odds are l = log p − log(1 − p). A temperature on one
side scales all log-odds by nearly one factor, so their difference D = l_π − l_μ is a line in their mean
M = (l_π + l_μ) / 2. A line in l_μ alone would tilt for two unrelated columns as well. Rounding moves D by about as
much at every p.

Shapes: N states of a block, M of them that are not nearly certain, S its sequences, C prompts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..measures.accumulators import ClusterSums
from .states import States

COLUMNS = ("odds_mean", "odds_difference", "odds_mean_square", "odds_product", "odds_difference_square", "scaled")
"""M, D, M², M·D, D², and (log ρ / (1 − p))² of the tokens that are not nearly certain."""

# The log-odds of nearly certain tokens are all rounding.
_CERTAIN = -1e-3
# Rounding moves log p by a multiple of 1 − p; above this probability the quotient is all rounding of log p itself.
_SCALED_BELOW = 0.9


def add_log_odds(sums: Mapping[str, ClusterSums], row_S: np.ndarray, states: States, *, truncated: bool) -> None:
    """Add the values of `COLUMNS`, of the states that say something of them, to their sums by prompt.

    `row_S` is the row of each sequence's prompt. `truncated` says that μ's sampler cuts ids off. That scales what
    is kept and so tilts the log-odds too: π is put on μ's support first, and where its mass there is not known no
    state says anything.
    """
    logp_mu_N, logp_pi_N = states.logp_mu_N, states.logp_pi_N
    if truncated:
        if "leak" not in states.columns:
            return
        logp_pi_N = logp_pi_N - np.log1p(-states.columns["leak"])
    seen_N = np.isfinite(logp_pi_N) & (logp_mu_N < _CERTAIN) & (logp_pi_N < _CERTAIN)
    logp_mu_M, logp_pi_M = logp_mu_N[seen_N], logp_pi_N[seen_N]
    sequence_M = np.repeat(np.arange(len(row_S)), states.length_S)[seen_N]
    p_mu_M, p_pi_M = np.exp(logp_mu_M), np.exp(logp_pi_M)
    odds_mu_M, odds_pi_M = logp_mu_M - np.log1p(-p_mu_M), logp_pi_M - np.log1p(-p_pi_M)
    mean_M, difference_M = (odds_mu_M + odds_pi_M) / 2, odds_pi_M - odds_mu_M
    p_M = np.sqrt(p_mu_M * p_pi_M)
    scaled_M = p_M < _SCALED_BELOW
    square_M = ((logp_pi_M - logp_mu_M)[scaled_M] / (1 - p_M[scaled_M])) ** 2
    columns = (mean_M, difference_M, mean_M**2, mean_M * difference_M, difference_M**2)
    for name, value_M in zip(COLUMNS[:-1], columns, strict=True):
        _add(sums[name], row_S, sequence_M, value_M)
    _add(sums[COLUMNS[-1]], row_S, sequence_M[scaled_M], square_M)


def _add(sums: ClusterSums, row_S: np.ndarray, sequence_M: np.ndarray, value_M: np.ndarray) -> None:
    sequences = len(row_S)
    sum_S = np.bincount(sequence_M, weights=value_M, minlength=sequences)
    sums.add(row_S, sum_S, np.bincount(sequence_M, minlength=sequences), value_M)


@dataclass(frozen=True)
class LogOddsFit:
    """The least-squares line of D on M over `n` tokens.

    `slope` is that of the line, `t` the slope over its standard error with the prompt as the unit of independence
    (a sandwich estimator, Liang and Zeger 1986), `explained` its R², `correlation` that of the two log-odds.
    """

    n: int
    slope: float
    t: float
    explained: float
    correlation: float

    @property
    def factor(self) -> float:
        """How many times the behaviour's log-odds the reference's are: l_π ≈ factor · l_μ."""
        return (2 + self.slope) / (2 - self.slope)


def fit_log_odds(sums: Mapping[str, ClusterSums]) -> LogOddsFit | None:
    """The line through all tokens that were added; None where they are too few, or do not vary."""
    clusters = len(sums["odds_mean"].by_cluster()[0])
    if clusters < 2:
        return None
    (m_C, n_C), *others = (sums[name].by_cluster() for name in COLUMNS[:-1])
    d_C, mm_C, md_C, dd_C = (sum_C for sum_C, _ in others)
    n = int(n_C.sum())
    mean_m, mean_d = m_C.sum() / n, d_C.sum() / n
    # Centred products of each prompt, about the means of all.
    mm_C = mm_C - 2 * mean_m * m_C + n_C * mean_m**2
    md_C = md_C - mean_m * d_C - mean_d * m_C + n_C * mean_m * mean_d
    dd = float((dd_C - 2 * mean_d * d_C + n_C * mean_d**2).sum())
    mm, md = float(mm_C.sum()), float(md_C.sum())
    variances = mm - md + dd / 4, mm + md + dd / 4  # of the log-odds of μ, and of π
    if min(mm, dd, *variances) <= 0:
        return None
    slope = md / mm
    score_C = md_C - slope * mm_C
    error = math.sqrt(float((score_C**2).sum()) * clusters / (clusters - 1)) / mm
    return LogOddsFit(
        n=n,
        slope=slope,
        t=slope / error if error else math.copysign(math.inf, slope),
        explained=md**2 / (mm * dd),
        correlation=(mm - dd / 4) / math.sqrt(variances[0] * variances[1]),
    )
