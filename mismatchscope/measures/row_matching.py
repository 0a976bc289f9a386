"""Does a row of one column belong to another row of the other column?

Shapes: C candidate rows, H first tokens of each, NaN where there is none.
"""

from __future__ import annotations

import numpy as np

ENOUGH = 16
"""Tokens that two rows must have in common."""
_CLEARLY = 4.0
_CORRELATION = 0.9


def matching_rows(logp_mu_CH: np.ndarray, logp_pi_CH: np.ndarray) -> np.ndarray:
    """For each row of μ the other row of π that it clearly belongs to, −1 where there is none; int64 [C].

    Clearly: mean |Δ log p| is less than a quarter of that in its own row and of that in any third one, and the two
    correlate.
    """
    partner_C = np.full(len(logp_mu_CH), -1, dtype=np.int64)
    known_pi_CH = np.isfinite(logp_pi_CH)
    pi_CH = np.where(known_pi_CH, logp_pi_CH, 0.0)
    for row, mu_H in enumerate(logp_mu_CH):
        known_CH = known_pi_CH & np.isfinite(mu_H)
        tokens_C = np.count_nonzero(known_CH, axis=1)
        sum_C = np.where(known_CH, np.abs(pi_CH - np.where(np.isfinite(mu_H), mu_H, 0.0)), 0.0).sum(axis=1)
        distance_C = np.where(tokens_C >= ENOUGH, sum_C / np.maximum(tokens_C, 1), np.inf)
        if len(distance_C) < 3 or not np.isfinite(distance_C[row]):
            continue
        best, second = np.argpartition(distance_C, 1)[:2].tolist()
        if distance_C[second] < distance_C[best]:
            best, second = second, best
        own = float(distance_C[row])
        if best == row or distance_C[best] * _CLEARLY >= min(own, float(distance_C[second])):
            continue
        both_H = known_CH[best]
        mu, pi = mu_H[both_H], logp_pi_CH[best][both_H]
        if mu.std() > 0 and pi.std() > 0 and float(np.corrcoef(mu, pi)[0, 1]) > _CORRELATION:
            partner_C[row] = best
    return partner_C
