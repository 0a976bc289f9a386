"""A policy restricted to the ids that the other one kept.

Legend: T = states, V = vocabulary, R = rows of one chunk. Inputs are natural logs.
"""

from __future__ import annotations

import numpy as np

from ..errors import EmptyComparisonError
from .cells import row_chunks
from .illegal_row import IllegalRowError

Array = np.ndarray

_DEAD_LOGP = -745.13  # below it a probability is zero in float64


def renormalise_on_support(logp_pi_TV: Array, logp_mu_TV: Array) -> tuple[Array, Array]:
    """pi restricted to mu's support and normalised again, the reference side of policy `support`; and the log
    of the mass that it kept, [T] float64.

    The mass that this removes is `Divergences.leak` of the arrays as they were, and it is the TV that
    top-p or top-k costs with perfect numerics. The result has pi's shape and type: pass blocks, not a whole
    trace.

    Raises:
        EmptyComparisonError: there are no states or no ids.
        ValueError: the shapes differ, a value is NaN or +inf, or pi has no mass on mu's support. The row is named.
    """
    if logp_mu_TV.ndim != 2 or logp_mu_TV.shape != logp_pi_TV.shape:
        raise ValueError(f"expected two arrays [T, V], got {logp_mu_TV.shape} and {logp_pi_TV.shape}")
    if logp_mu_TV.size == 0:
        raise EmptyComparisonError("There is no state to compare.")
    logp_TV = np.empty_like(logp_pi_TV)
    kept_logmass_T = np.empty(len(logp_pi_TV))
    for rows in row_chunks(*logp_pi_TV.shape):
        logp_mu_RV = _legal_rows(logp_mu_TV, rows, "behaviour")
        logp_pi_RV = _legal_rows(logp_pi_TV, rows, "reference")
        logp_RV = np.where(logp_mu_RV < _DEAD_LOGP, -np.inf, logp_pi_RV)
        top_R1 = logp_RV.max(axis=1, keepdims=True)
        if np.isneginf(top_R1).any():
            row = rows.start + int(np.argmin(top_R1))
            raise IllegalRowError(row, ": the reference has no mass on the behaviour's support")
        kept_R = np.exp(logp_RV - top_R1).sum(axis=1, dtype=np.float64)
        kept_logmass_T[rows] = top_R1[:, 0] + np.log(kept_R)
        logp_TV[rows] = logp_RV - kept_logmass_T[rows, None]
    return logp_TV, kept_logmass_T


def _legal_rows(logp_TV: Array, rows: slice, side: str) -> Array:
    logp_RV = logp_TV[rows]
    bad_R = ~(logp_RV < np.inf).all(axis=1)
    if bad_R.any():
        raise IllegalRowError(rows.start + int(np.argmax(bad_R)), f" of the {side} holds NaN or +inf")
    return logp_RV
