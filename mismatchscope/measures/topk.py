"""What the top-k ids of each state prove about the divergences over the whole vocabulary.

Legend: T = states, K = observed ids (mu's top-k and the sampled token), R = rows of one chunk. The tail is every
id that was not observed; its two masses are known, how they are spread is not.

`topk.c` sums over the observed ids. `_sums_by_numpy` does the same in arrays of every step, far slower: where there
is no C compiler, and as what the kernel is tested against.
"""

from __future__ import annotations

from ctypes import CDLL
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..errors import EmptyComparisonError
from . import kernel
from .cells import MASS_TOLERANCE, Cells, row_chunks
from .illegal_row import IllegalRowError

Array = np.ndarray

# A tail is one minus a sum of float32 probabilities, so its last 1e-6 is rounding. KL looks at logarithms of it
# and would be infinite for a tail that rounded to zero. The smaller tail is therefore raised by this much (at most
# to the larger one), which can only lower the bound, and by the same argument of data processing more ids still
# never loosen it.
TAIL_RESOLUTION = 1e-6


@dataclass(frozen=True, eq=False)
class TopkDivergences:
    """Bounds of each state, [T], float64 in nats."""

    tv_lower: Array
    tv_upper: Array
    kl_lower: Array
    """KL(mu || pi) of the partition into the observed ids and one tail: by data processing a lower bound."""
    reverse_kl_lower: Array
    js_lower: Array
    observed_tv: Array
    """sum_K (mu - pi)_+: what the observed ids alone add to TV."""
    observed_kl: Array
    """sum_K mu (rho - 1 - log rho): what they add to KL(mu || pi) less the leak."""


def topk_interval(
    logp_mu_TK: ArrayLike, logp_pi_TK: ArrayLike, *, tail_overlap_T: ArrayLike | None = None
) -> TopkDivergences:
    """Bounds from both policies' log-probabilities at the same, distinct ids.

    The ids of a row contain mu's most probable ones. A row with fewer than K ids is filled up with NaN on both
    sides; -inf is a legal log-probability (outside the support). float64 rows whose ids are adjacent are read
    where they lie.

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
    library = kernel.library()
    if library is None:
        observed_T = _sums_by_numpy(logp_mu_TK, logp_pi_TK)
    else:
        observed_T = _sums_by_kernel(library, logp_mu_TK, logp_pi_TK)

    tail_mu_T = _tail(observed_T["mass_mu"], "behaviour")
    tail_pi_T = _tail(observed_T["mass_pi"], "reference")
    shared_at_most_T = np.minimum(tail_mu_T, tail_pi_T)
    coarse_tv_T = observed_T["tv"] + np.abs(tail_mu_T - tail_pi_T) / 2
    tail = Cells(_log_raised(tail_mu_T, tail_pi_T), _log_raised(tail_pi_T, tail_mu_T))
    return TopkDivergences(
        tv_lower=coarse_tv_T + np.maximum(shared_at_most_T - overlap_T, 0),
        tv_upper=coarse_tv_T + shared_at_most_T,
        kl_lower=observed_T["kl"] + tail.kl(),
        reverse_kl_lower=observed_T["reverse_kl"] + tail.reverse_kl(),
        js_lower=observed_T["js"] + tail.js(),
        # |x| + x is twice the positive part; the masses' rounding must not make it negative.
        observed_tv=np.maximum(observed_T["tv"] + (observed_T["mass_mu"] - observed_T["mass_pi"]) / 2, 0),
        observed_kl=np.maximum(observed_T["kl"] - observed_T["leak"], 0),
    )


def rao_blackwellised(
    observed_T: Array, sampled_T: Array, *, logp_mu_T: Array, beyond_T: Array, weight_T: Array | float = 1.0
) -> Array:
    """Unbiased for the sum over all ids of mu(a) f(a): what is in mu's top-k is summed, the rest is sampled.

        sum_{a in K} mu(a) f(a) + w 1{a_t not in K} f(a_t)        K = mu's top-k, chosen without the sampled token

    `observed_T` is the sum over K and the sampled token, `sampled_T` is f(a_t), and `beyond_T` says that a_t is not
    in K. With f = (1 - rho)_+ it is TV, with f = rho - 1 - log rho KL(mu || pi) less the leak. `weight_T` is
    mu(a_t) over the probability that a_t was drawn with, where another policy drew it. All are [T].

    The partial sum is Rao and Blackwell's: E[1{a_t in K} f(a_t)] is known, so it need not be sampled.
    """
    with np.errstate(invalid="ignore"):  # an infinity less itself, where it stays one
        estimate_T = observed_T + np.where(beyond_T, (weight_T - np.exp(logp_mu_T)) * sampled_T, 0.0)
    return np.where(np.isinf(observed_T), observed_T, np.maximum(estimate_T, 0.0))


def _sums_by_kernel(library: CDLL, logp_mu_TK: Array, logp_pi_TK: Array) -> Array:
    """Both masses of the observed ids and what these add to each divergence, `kernel.TOPK_RESULT` [T]."""
    mu_TK, pi_TK = _rows_of_float64(logp_mu_TK), _rows_of_float64(logp_pi_TK)
    sums_T = np.empty(len(mu_TK), kernel.TOPK_RESULT)

    def measure(begin: int, end: int) -> None:
        sides = (*kernel.rows_at(mu_TK, begin), *kernel.rows_at(pi_TK, begin))
        out, _ = kernel.rows_at(sums_T, begin)
        library.topk_sums(*sides, end - begin, mu_TK.shape[1], out)

    kernel.in_pieces(measure, len(sums_T), kernel.available_cores())
    if (illegal_T := np.isnan(sums_T["mass_mu"])).any():
        row = int(np.argmax(illegal_T))  # one is enough: numpy refuses it, or sees a sum of more than one
        sums_T[row] = _sums_by_numpy(mu_TK[row : row + 1], pi_TK[row : row + 1], row)[0]
    return sums_T


def _sums_by_numpy(logp_mu_TK: Array, logp_pi_TK: Array, first_row: int = 0) -> Array:
    """`_sums_by_kernel` in numpy; `first_row` is what errors call the first of these rows.

    Temporaries stay near `cells.CHUNK_BYTES`, whatever T is.
    """
    sums_T = np.empty(len(logp_mu_TK), kernel.TOPK_RESULT)
    for rows in row_chunks(*logp_mu_TK.shape):
        cells = Cells(*_missing_as_empty(logp_mu_TK[rows], logp_pi_TK[rows], first_row + rows.start))
        sums_R = sums_T[rows]
        sums_R["mass_mu"], sums_R["mass_pi"] = cells.mu.sum(axis=1), cells.pi.sum(axis=1)
        sums_R["tv"], sums_R["js"] = cells.tv(), cells.js()
        sums_R["kl"], sums_R["reverse_kl"] = cells.kl(), cells.reverse_kl()
        sums_R["leak"] = cells.leak
    return sums_T


def _rows_of_float64(logp_TK: Array) -> Array:
    logp_TK = logp_TK.astype(np.float64, copy=False)
    return logp_TK if kernel.has_adjacent_columns(logp_TK) else np.ascontiguousarray(logp_TK)


def _missing_as_empty(logp_mu_RK: Array, logp_pi_RK: Array, first_row: int) -> tuple[Array, Array]:
    """float64 copies in which a missing entry has no mass on either side, so that it adds nothing."""
    missing_mu, missing_pi = np.isnan(logp_mu_RK), np.isnan(logp_pi_RK)
    _reject((missing_mu != missing_pi).any(axis=1), first_row, "a log-probability is NaN on one side alone")
    if (empty_R := missing_mu.all(axis=1)).any():
        raise EmptyComparisonError(f"Row {first_row + int(np.argmax(empty_R))} has no observed id.")
    mu_RK, pi_RK = (
        np.where(missing_mu, -np.inf, logp_RK.astype(np.float64)) for logp_RK in (logp_mu_RK, logp_pi_RK)
    )
    _reject((np.maximum(mu_RK, pi_RK) == np.inf).any(axis=1), first_row, "a log-probability is +inf")
    return mu_RK, pi_RK


def _tail(mass_T: Array, side: str) -> Array:
    tail_T = 1 - mass_T
    _reject(tail_T < -MASS_TOLERANCE, 0, f"the {side} probabilities of distinct ids sum to more than one")
    return np.maximum(tail_T, 0)  # what is left below zero is rounding


def _log_raised(tail_T: Array, other_T: Array) -> Array:
    with np.errstate(divide="ignore"):  # both tails empty: outside both supports, a cell that adds nothing
        return np.log(np.maximum(tail_T, np.minimum(tail_T + TAIL_RESOLUTION, other_T)))[:, None]


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
        raise IllegalRowError(first_row + int(np.argmax(bad_R)), f": {why}")
