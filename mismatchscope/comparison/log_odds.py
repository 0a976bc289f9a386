"""The log-odds of the sampled tokens under both policies: how they differ tells rounding from a temperature.

With p_μ and p_π the probabilities of a sampled token, its log-odds are l = log p − log(1 − p). A temperature on one
side scales all log-odds by nearly one factor, so their difference D = l_π − l_μ is a line in their mean
M = (l_π + l_μ) / 2. A line in l_μ alone would tilt for two unrelated columns as well. Rounding moves D by about as
much at every p.

Shapes: N states of a block, S its sequences, C prompts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..measures.accumulators import ClusterSums
from ..measures.log_odds import COLUMNS, log_odds_sums
from .states import States


def add_log_odds(sums: Mapping[str, ClusterSums], row_S: np.ndarray, states: States, *, truncated: bool) -> None:
    """Add the values of `COLUMNS`, of the states that say something of them, to their sums by prompt.

    `row_S` is the row of each sequence's prompt. `truncated` says that μ's sampler cuts ids off. That scales what
    is kept and so tilts the log-odds too: π is put on μ's support first, and where its mass there is not known no
    state says anything.
    """
    logp_pi_N = states.logp_pi_N
    if truncated:
        if "leak" not in states.columns:
            return
        logp_pi_N = logp_pi_N - np.log1p(-states.columns["leak"])
    for name, found in log_odds_sums(states.logp_mu_N, logp_pi_N, states.offsets_S1).items():
        if found.count_S.any():
            sums[name].add_sums(row_S, found.sum_S, found.count_S, found.smallest, found.largest)


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
