"""Exact divergences of two policies at each state, from full-vocabulary logits or log-probabilities.

Legend: N = states, V = vocabulary, R = rows of one chunk.

float32 and bfloat16 rows are measured where they lie, in one pass over memory, by `full.c`, or on a GPU by
`full_triton`. `_by_numpy` does the same in float64 arrays of every step, far slower: for float64 rows, where there
is no C compiler, and as what the kernels are tested against.
"""

from __future__ import annotations

import math
from ctypes import CDLL
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from ..errors import EmptyComparisonError
from . import kernel
from .blocks import Block, checked_token_ids
from .cells import MASS_TOLERANCE, Cells, row_chunks
from .illegal_row import IllegalRowError

if TYPE_CHECKING:
    import torch

Array = np.ndarray

EXACT = (
    *("tv", "kl", "reverse_kl", "chi2", "js", "leak"),
    *("max_abs_dlogp", "top1_agree", "entropy_mu", "entropy_pi"),
)
"""The figures of `Divergences` that need whole distributions, and that a comparison is made of."""

# The kernels' own sums are off by 1e-6 at most; closer to the tolerance than this, float64 decides.
_CLEARLY_NORMALISED = 0.8 * MASS_TOLERANCE


@dataclass(frozen=True, eq=False)
class Divergences:
    """One value per state, [N], float64 in nats except `top1_agree` (bool)."""

    tv: Array
    """Total variation, half the L1 distance, in [0, 1]."""
    kl: Array
    """KL(mu || pi); infinite when `reverse_leak` is positive."""
    reverse_kl: Array
    """KL(pi || mu); infinite when `leak` is positive."""
    chi2: Array
    """chi^2(pi || mu) = sum pi^2 / mu - 1; infinite when `leak` is positive."""
    js: Array
    """Jensen-Shannon divergence, in [0, log 2]."""
    leak: Array
    """pi's mass outside mu's support: what sampling from mu can never show."""
    reverse_leak: Array
    """mu's mass outside pi's support."""
    max_abs_dlogp: Array
    """Largest |log mu - log pi| over the ids that at least one side gives `mass_floor` or more. Infinite when such
    an id is outside the other side's support, NaN when there is no such id."""
    max_abs_dlogp_mass: Array
    """mu's mass on the ids that `max_abs_dlogp` looked at."""
    top1_agree: Array
    """Both sides have the same most probable id (the lowest, where ids tie: the one greedy decoding takes)."""
    entropy_mu: Array
    entropy_pi: Array
    log_ratio: Array | None
    """log pi(a) - log mu(a) of the given token ids; NaN where a is outside both supports by -inf. None where no ids
    were given."""


def divergences(
    mu_NV: ArrayLike | torch.Tensor,
    pi_NV: ArrayLike | torch.Tensor,
    token_id_N: ArrayLike | torch.Tensor | None = None,
    *,
    normalised: bool = False,
    mass_floor: float = 1e-4,
    threads: int | None = None,
) -> Divergences:
    """Divergences of behaviour policy mu and reference policy pi at every state.

    Each side is a block of logits or natural log-probabilities, [N, V]: nested lists, numpy, or PyTorch on a CPU or
    a GPU, both on the same device. float32 and bfloat16 are read in place; rows may be strided (a slice of a padded
    vocabulary, say). float16 is widened, and float64 is measured in float64, slower. The log-softmax of both sides
    is part of the work, and nothing of size [N, V] or [V] is allocated for it. An id of probability zero, by -inf
    or by the large negative number that engines mask with, is outside the support.

    With `normalised` the rows are log-probabilities that somebody stored: they are taken as they are and must sum
    to one, and a softmax that was badly computed is an error instead of a difference.

    `token_id_N` are the ids whose `log_ratio` is asked for; `mass_floor` is the probability from which on an id
    counts for `max_abs_dlogp`; `threads` defaults to the cores that this process may use.

    With d = log pi - log mu, KL(mu || pi) = leak + sum mu (exp(d) - 1 - d), which does not cancel (see `cells` for
    all formulas). From float32, TV is within 1e-6 of what float64 arithmetic gives and the other figures within a
    relative 1e-4; identical blocks have divergences of exactly zero.

    Raises:
        EmptyComparisonError: there are no states or no ids.
        MissingDependencyError: the blocks are on a GPU and Triton is not installed.
        TypeError: a side is of another type.
        ValueError: the shapes or devices differ, a token id is outside the vocabulary, or a row holds NaN, +inf,
            nothing but -inf, or with `normalised` does not sum to one within `MASS_TOLERANCE`. The row is named.
    """
    mu, pi = Block.of(mu_NV, "behaviour"), Block.of(pi_NV, "reference")
    if mu.shape != pi.shape:
        raise ValueError(f"the behaviour is {mu.shape}, the reference {pi.shape}: the shapes must be the same")
    n_rows, n_ids = mu.shape
    if n_rows == 0 or n_ids == 0:
        raise EmptyComparisonError(f"Blocks of shape {mu.shape} hold nothing to compare.")
    if threads is not None and threads < 1:
        raise ValueError(f"threads is {threads}, must be at least 1")
    token_id = None if token_id_N is None else checked_token_ids(token_id_N, n_rows, n_ids)

    result_N = _measured(mu, pi, normalised, mass_floor, threads or kernel.available_cores())
    log_ratio_N = None
    if token_id is not None:
        with np.errstate(invalid="ignore"):  # -inf on both sides
            log_ratio_N = (pi.at(token_id) - result_N["logsumexp_pi"]) - (
                mu.at(token_id) - result_N["logsumexp_mu"]
            )
    names = Divergences.__dataclass_fields__.keys() - {"log_ratio", "top1_agree"}
    return Divergences(
        **{name: result_N[name].copy() for name in names},
        top1_agree=result_N["top1_agree"] == 1,
        log_ratio=log_ratio_N,
    )


def _measured(mu: Block, pi: Block, normalised: bool, mass_floor: float, threads: int) -> Array:
    """`kernel.FULL_RESULT` [N], by the fastest way there is."""
    precisions, library = {mu.precision, pi.precision}, kernel.library()
    if mu.on_gpu or pi.on_gpu:
        from . import full_triton

        result_N = full_triton.measure(mu.values, pi.values, normalised, _log(mass_floor))
    elif "float64" in precisions or (normalised and "bfloat16" in precisions) or library is None:
        return _by_numpy(mu, pi, slice(0, mu.shape[0]), normalised, mass_floor)
    else:
        result_N = _by_kernel(library, mu, pi, normalised, mass_floor, threads)
    mass_error_N = np.maximum(np.abs(result_N["mass_mu"] - 1), np.abs(result_N["mass_pi"] - 1))
    for row in np.flatnonzero(~(mass_error_N < _CLEARLY_NORMALISED)):  # NaN for a row that is not legal
        result_N[row : row + 1] = _by_numpy(mu, pi, slice(row, row + 1), normalised, mass_floor)
    return result_N


def _by_kernel(library: CDLL, mu: Block, pi: Block, normalised: bool, mass_floor: float, threads: int) -> Array:
    result_N = np.empty(mu.shape[0], kernel.FULL_RESULT)
    floor = _log(mass_floor)

    def measure(begin: int, end: int) -> None:
        mu_rows, pi_rows = kernel.rows_at(mu.values, begin), kernel.rows_at(pi.values, begin)
        shape = (end - begin, mu.shape[1])
        out, _ = kernel.rows_at(result_N, begin)
        if normalised:
            library.logp_divergences(*mu_rows, *pi_rows, *shape, floor, out)
        else:
            dtypes = (mu.precision == "bfloat16", pi.precision == "bfloat16")
            library.logit_divergences(*mu_rows, dtypes[0], *pi_rows, dtypes[1], *shape, floor, out)

    kernel.in_pieces(measure, len(result_N), threads)
    return result_N


def _by_numpy(mu: Block, pi: Block, rows: slice, normalised: bool, mass_floor: float) -> Array:
    """Some rows in numpy and float64. Temporaries stay near `cells.CHUNK_BYTES`, whatever N is."""
    result_N = np.empty(rows.stop - rows.start, kernel.FULL_RESULT)
    for chunk in row_chunks(len(result_N), mu.shape[1]):
        first = rows.start + chunk.start
        logp_mu_RV, logsumexp_mu_R = _log_probabilities(mu, first, chunk, normalised, "behaviour")
        logp_pi_RV, logsumexp_pi_R = _log_probabilities(pi, first, chunk, normalised, "reference")
        cells = Cells(logp_mu_RV, logp_pi_RV)
        result_R = result_N[chunk]
        result_R["mass_mu"] = _checked_mass(cells.mu, first, "behaviour")
        result_R["mass_pi"] = _checked_mass(cells.pi, first, "reference")
        for name in ("tv", "kl", "reverse_kl", "chi2", "js"):
            result_R[name] = getattr(cells, name)()
        result_R["leak"], result_R["reverse_leak"] = cells.leak, cells.reverse_leak
        result_R["max_abs_dlogp"], result_R["max_abs_dlogp_mass"] = _max_abs_dlogp(cells, mass_floor)
        result_R["top1_agree"] = logp_mu_RV.argmax(axis=1) == logp_pi_RV.argmax(axis=1)
        result_R["entropy_mu"] = _entropy(cells.mu, logp_mu_RV)
        result_R["entropy_pi"] = _entropy(cells.pi, logp_pi_RV)
        result_R["logsumexp_mu"], result_R["logsumexp_pi"] = logsumexp_mu_R, logsumexp_pi_R
    return result_N


def _log_probabilities(
    block: Block, first: int, chunk: slice, normalised: bool, side: str
) -> tuple[Array, Array | float]:
    """Some rows as log-probabilities [R, V] float64, and what was taken off them."""
    logp_RV = block.rows(slice(first, first + chunk.stop - chunk.start))
    top_R = logp_RV.max(axis=1)
    if (bad_R := ~(top_R < np.inf)).any():  # NaN is the maximum of whatever it is among
        row = int(np.argmax(bad_R))
        at = int(np.argmax(~(logp_RV[row] < np.inf)))
        raise IllegalRowError(first + row, f" of the {side} holds {logp_RV[row, at]} at id {at}")
    if (bad_R := top_R == -np.inf).any():
        raise IllegalRowError(first + int(np.argmax(bad_R)), f" of the {side} holds nothing but -inf")
    if normalised:
        return logp_RV, 0.0
    logsumexp_R = top_R + np.log(np.exp(logp_RV - top_R[:, None]).sum(axis=1))
    return logp_RV - logsumexp_R[:, None], logsumexp_R


def _checked_mass(p_RV: Array, first_row: int, side: str) -> Array:
    mass_R = p_RV.sum(axis=1)
    error_R = np.abs(mass_R - 1)
    if (error_R > MASS_TOLERANCE).any():
        worst = int(np.argmax(error_R))
        raise IllegalRowError(
            first_row + worst,
            f" of the {side} log-probabilities is not normalised: its probabilities sum to one with an error of "
            f"{error_R[worst]:.2g}, more than {MASS_TOLERANCE:g}",
        )
    return mass_R


def _max_abs_dlogp(cells: Cells, mass_floor: float) -> tuple[Array, Array]:
    looked_at = np.maximum(cells.mu, cells.pi) >= mass_floor
    gap_RV = np.where(cells.both, cells.abs_d, np.inf)
    largest_R = np.max(gap_RV, axis=1, where=looked_at, initial=0.0)
    return (
        np.where(looked_at.any(axis=1), largest_R, np.nan),
        np.sum(cells.mu, axis=1, where=looked_at),
    )


def _entropy(p_RV: Array, logp_RV: Array) -> Array:
    return -np.sum(np.multiply(p_RV, logp_RV, out=np.zeros_like(p_RV), where=p_RV > 0), axis=1)


def _log(mass_floor: float) -> float:
    return math.log(mass_floor) if mass_floor > 0 else -math.inf  # a floor of zero: every id counts
