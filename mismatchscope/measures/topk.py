"""What the top-k ids of each state prove about the divergences over the whole vocabulary.

Legend: T = states, K = observed ids (mu's top-k and the sampled token), R = rows of one chunk. The tail is every
id that was not observed; its two masses are known, how they are spread is not.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike

from mismatchscope.errors import EmptyComparisonError
from mismatchscope.measures.cells import Cells, row_chunks
from mismatchscope.measures.divergences import MASS_TOLERANCE

Array = np.ndarray

# A tail is one minus a sum of float32 probabilities, so its last 1e-6 is rounding. KL looks at logarithms of it
# and would be infinite for a tail that rounded to zero. The smaller tail is therefore raised by this much (at most
# to the larger one), which can only lower the bound, and by the same argument of data processing more ids still
# never loosen it.
TAIL_RESOLUTION = 1e-6


@dataclass(frozen=True, eq=False)
class TopkDivergences:
    """One value per state, [T], float64 in nats."""

    tv_lower: Array
    tv_upper: Array
    kl_lower: Array
    """KL(mu || pi) of the partition into the observed ids and one tail: by data processing a lower bound."""
    reverse_kl_lower: Array
    js_lower: Array
    tail_mu: Array
    """1 - sum of mu over the observed ids."""
    tail_pi: Array
    top1_agree: Array
    """1 where both sides have the same most probable id, 0 where not, NaN where the tail could hide pi's."""


def topk_interval(
    logp_mu_TK: ArrayLike, logp_pi_TK: ArrayLike, *, tail_overlap_T: ArrayLike | None = None
) -> TopkDivergences:
    """Bounds from both policies' log-probabilities at the same, distinct ids.

    The ids of a row contain mu's most probable ones. A row with fewer than K ids is filled up with NaN on both
    sides; -inf is a legal log-probability (outside the support).

        tv_lower = 1/2 (sum_K |mu - pi| + |tail_mu - tail_pi|)
        tv_upper = tv_lower + min(tail_mu, tail_pi) = 1 - sum_K min(mu, pi)

    `tail_overlap_T` raises the lower end where pi is known everywhere: it is the sum over the tail of
    min(pi_a, m), m being mu's k-th largest probability (of the top-k, not of the sampled token), which no
    unobserved id exceeds. The two policies then share at most that much of the tail:

        tv_lower = tv_upper - min(tail_mu, tail_pi, tail_overlap)

    Raises:
        EmptyComparisonError: there are no states, or a row has no id.
        ValueError: the shapes differ; a value is +inf, or NaN on one side alone; a row's probabilities sum to
            more than one (an id twice, or not normalised); an overlap is no number >= 0. The row is named.
    """
    logp_mu_TK, logp_pi_TK = np.asarray(logp_mu_TK), np.asarray(logp_pi_TK)
    if logp_mu_TK.ndim != 2 or logp_mu_TK.shape != logp_pi_TK.shape:
        raise ValueError(f"expected two arrays [T, K], got {logp_mu_TK.shape} and {logp_pi_TK.shape}")
    if logp_mu_TK.size == 0:
        raise EmptyComparisonError("There is no state to compare.")
    overlap_T = _checked_overlap(tail_overlap_T, len(logp_mu_TK))
    chunks = [
        _interval(logp_mu_TK[rows], logp_pi_TK[rows], overlap_T[rows], rows.start)
        for rows in row_chunks(*logp_mu_TK.shape)
    ]
    return TopkDivergences(
        **{f.name: np.concatenate([getattr(chunk, f.name) for chunk in chunks]) for f in fields(TopkDivergences)}
    )


def _interval(logp_mu_RK: Array, logp_pi_RK: Array, overlap_R: Array, first_row: int) -> TopkDivergences:
    logp_mu_RK, logp_pi_RK = _missing_as_empty(logp_mu_RK, logp_pi_RK, first_row)
    observed = Cells(logp_mu_RK, logp_pi_RK)
    tail_mu_R = _tail(observed.mu, "behaviour", first_row)
    tail_pi_R = _tail(observed.pi, "reference", first_row)
    shared_at_most_R = np.minimum(tail_mu_R, tail_pi_R)
    coarse_tv_R = observed.tv() + np.abs(tail_mu_R - tail_pi_R) / 2
    tail = Cells(_log_raised(tail_mu_R, tail_pi_R), _log_raised(tail_pi_R, tail_mu_R))
    return TopkDivergences(
        tv_lower=coarse_tv_R + np.maximum(shared_at_most_R - overlap_R, 0),
        tv_upper=coarse_tv_R + shared_at_most_R,
        kl_lower=observed.kl() + tail.kl(),
        reverse_kl_lower=observed.reverse_kl() + tail.reverse_kl(),
        js_lower=observed.js() + tail.js(),
        tail_mu=tail_mu_R,
        tail_pi=tail_pi_R,
        top1_agree=_top1_agree(logp_mu_RK, observed.pi, tail_pi_R),
    )


def _top1_agree(logp_mu_RK: Array, pi_RK: Array, tail_pi_R: Array) -> Array:
    rows_R = np.arange(len(pi_RK))
    pi_at_mu_top_R = pi_RK[rows_R, logp_mu_RK.argmax(axis=1)]
    beaten = pi_at_mu_top_R < pi_RK.max(axis=1)  # whatever the tail holds
    unbeatable = pi_at_mu_top_R > tail_pi_R
    return np.where(beaten, 0.0, np.where(unbeatable, 1.0, np.nan))


def _missing_as_empty(logp_mu_RK: Array, logp_pi_RK: Array, first_row: int) -> tuple[Array, Array]:
    """float64 copies in which a missing entry has no mass on either side, so that it adds nothing."""
    missing_mu, missing_pi = np.isnan(logp_mu_RK), np.isnan(logp_pi_RK)
    _reject((missing_mu != missing_pi).any(axis=1), first_row, "a log-probability is NaN on one side alone")
    if (empty_R := missing_mu.all(axis=1)).any():
        raise EmptyComparisonError(f"Row {first_row + int(np.argmax(empty_R))} has no observed id.")
    sides = tuple(np.where(missing_mu, -np.inf, logp_RK.astype(np.float64)) for logp_RK in (logp_mu_RK, logp_pi_RK))
    _reject((np.maximum(*sides) == np.inf).any(axis=1), first_row, "a log-probability is +inf")
    return sides


def _tail(p_RK: Array, side: str, first_row: int) -> Array:
    tail_R = 1 - p_RK.sum(axis=1)
    _reject(tail_R < -MASS_TOLERANCE, first_row, f"the {side} probabilities of distinct ids sum to more than one")
    return np.maximum(tail_R, 0)  # what is left below zero is rounding


def _log_raised(tail_R: Array, other_R: Array) -> Array:
    with np.errstate(divide="ignore"):  # both tails empty: outside both supports, a cell that adds nothing
        return np.log(np.maximum(tail_R, np.minimum(tail_R + TAIL_RESOLUTION, other_R)))[:, None]


def _checked_overlap(tail_overlap_T: ArrayLike | None, rows: int) -> Array:
    if tail_overlap_T is None:
        return np.full(rows, np.inf)
    overlap_T = np.asarray(tail_overlap_T, dtype=np.float64)
    if overlap_T.shape != (rows,):
        raise ValueError(f"expected a tail overlap for each of {rows} states, got shape {overlap_T.shape}")
    _reject(~(overlap_T >= 0), 0, "the tail overlap is no number >= 0")
    return overlap_T


def _reject(bad_R: Array, first_row: int, why: str) -> None:
    if bad_R.any():
        raise ValueError(f"row {first_row + int(np.argmax(bad_R))}: {why}")
