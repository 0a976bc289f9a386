"""Does a response's column of log-probs fit the other one better when it is moved by a token or two?

Every token votes: at shift s log μ at t stands beside log π at t + s, and the distance between them is smaller or
larger than at shift 0. A token at the end has no partner at some shift, and one large distance that drops out
there would look like a better alignment; so the distance at 0 is taken once at μ's token and once at π's, and the
worse of both counts.

Shapes: S responses, W tokens of each, K shifts, V = 2 ways to take the distance at 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SHIFTS = (-2, -1, 1, 2)
LEVEL = 1e-4
"""At most this share of responses without a shift is taken for a shifted one, if tokens vote independently."""
_TELLS = 0.01
_CLEARLY = 1.2


@dataclass(frozen=True, eq=False)
class ShiftVotes:
    """Tokens of each response that prefer a shift to 0, and those that prefer 0, int [S, K, V]; and sums of
    |Δ log p| over the same tokens at 0 and at the shift, float [S, K, V]."""

    better_SKV: np.ndarray
    worse_SKV: np.ndarray
    at_zero_SKV: np.ndarray
    at_shift_SKV: np.ndarray


def shift_votes(logp_mu_SW: np.ndarray, logp_pi_SW: np.ndarray) -> ShiftVotes:
    """The votes of responses' first tokens; NaN where a token does not count or there is none."""
    shape = (len(logp_mu_SW), len(SHIFTS), 2)
    better, worse = np.zeros(shape, dtype=np.int16), np.zeros(shape, dtype=np.int16)
    at_zero, at_shift = np.zeros(shape), np.zeros(shape)
    zero_SW = np.abs(logp_mu_SW - logp_pi_SW)
    width = logp_mu_SW.shape[1]
    for k, shift in enumerate(SHIFTS):
        if abs(shift) >= width:
            continue
        of_mu = slice(max(0, -shift), width - max(0, shift))
        of_pi = slice(max(0, shift), width - max(0, -shift))
        moved_SW = np.abs(logp_mu_SW[:, of_mu] - logp_pi_SW[:, of_pi])
        for v, of_zero in enumerate((of_mu, of_pi)):
            beside_SW = zero_SW[:, of_zero]
            better[:, k, v] = np.count_nonzero(moved_SW < beside_SW, axis=1)
            worse[:, k, v] = np.count_nonzero(moved_SW > beside_SW, axis=1)
            both_SW = np.isfinite(moved_SW) & np.isfinite(beside_SW)
            at_zero[:, k, v] = np.where(both_SW, beside_SW, 0.0).sum(axis=1)
            at_shift[:, k, v] = np.where(both_SW, moved_SW, 0.0).sum(axis=1)
    return ShiftVotes(better, worse, at_zero, at_shift)


def shift_of_responses(votes: ShiftVotes) -> tuple[np.ndarray, np.ndarray]:
    """(shift that each response fits better at, 0 where none [S]; whether it can tell at all [S]).

    A shift wins by a sign test at `LEVEL`, divided by the number of shifts, and by a mean distance that is clearly
    smaller. A response can tell where a shift wins, or where 0 beats every shift.
    """
    from scipy.special import bdtr

    votes_SKV = votes.better_SKV.astype(np.int64) + votes.worse_SKV
    tokens_SKV = np.maximum(votes_SKV, 1)
    against_p = bdtr(votes.worse_SKV.astype(np.float64), tokens_SKV, 0.5)  # so few against it, by chance
    for_p = bdtr(votes.better_SKV.astype(np.float64), tokens_SKV, 0.5)
    cast_SKV = votes_SKV > 0
    smaller_SKV = votes.at_shift_SKV * _CLEARLY < votes.at_zero_SKV
    wins_SK = (cast_SKV & smaller_SKV & (against_p < LEVEL / len(SHIFTS))).all(axis=2)
    margin_SK = (votes.better_SKV.astype(np.int64) - votes.worse_SKV).min(axis=2)
    best_S = np.where(wins_SK, margin_SK, -1).argmax(axis=1)
    shift_S = np.where(wins_SK.any(axis=1), np.array(SHIFTS)[best_S], 0)
    zero_wins_S = (cast_SKV & (for_p < _TELLS)).any(axis=2).all(axis=1)
    return shift_S, (shift_S != 0) | zero_wins_S
