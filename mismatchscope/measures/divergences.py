"""Exact divergences of two policies at each state, from full-vocabulary log-probabilities.

Legend: T = states, V = vocabulary, R = rows of one chunk. Inputs are natural logs.

float32 rows are measured where they lie, in one pass over memory, by `fused.c`. `by_numpy` does the same in
float64 arrays of every step, far slower: for float64 rows, where there is no C compiler, and as what the
kernel is tested against.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from mismatchscope.errors import EmptyComparisonError
from mismatchscope.measures import kernel
from mismatchscope.measures.cells import Cells, row_chunks

Array = np.ndarray

# Rows must sum to one within this. float32 rounding stays below it; a softmax denominator that was summed
# one float32 after another does not (1e-4 at 150k ids), and its error would be reported as TV.
MASS_TOLERANCE = 1e-5

# The kernel's own sums are off by 1e-6 at most; closer to the tolerance than this, float64 decides.
_CLEARLY_NORMALISED = 0.8 * MASS_TOLERANCE

_DEAD_LOGP = -745.13  # below it a probability is zero in float64

# One row of results, in the order of the C struct.
_RESULT = np.dtype(
    [
        (name, np.float64)
        for name in (
            *("mass_mu", "mass_pi", "tv", "kl", "reverse_kl", "chi2", "js", "leak", "reverse_leak"),
            *("entropy_mu", "entropy_pi", "max_abs_dlogp", "max_abs_dlogp_mass", "top1_agree"),
        )
    ]
)


@dataclass(frozen=True, eq=False)
class FullDivergences:
    """One value per state, [T], float64 in nats except `top1_agree` (bool)."""

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


def full_divergences(logp_mu_TV: Array, logp_pi_TV: Array, *, mass_floor: float = 1e-4) -> FullDivergences:
    """Divergences of behaviour policy mu and reference policy pi at every state.

    Both arrays are [T, V], float32 or float64, normalised. A padded vocabulary is fine: its extra columns
    hold -inf on both sides. Log-probabilities are taken as they are, not normalised again. From float32 rows,
    TV is within 1e-6 of what float64 arithmetic gives and the other figures within a relative 1e-4; identical
    rows have divergences of exactly zero.

    Raises:
        EmptyComparisonError: there are no states or no ids.
        ValueError: the shapes differ, a value is NaN or +inf, or a row does not sum to one within
            `MASS_TOLERANCE`. The row is named.
    """
    _check_shapes(logp_mu_TV, logp_pi_TV)
    in_place = all(side.dtype == np.float32 and kernel.has_adjacent_ids(side) for side in (logp_mu_TV, logp_pi_TV))
    if not in_place or kernel.backend() == "numpy":
        return by_numpy(logp_mu_TV, logp_pi_TV, mass_floor=mass_floor)

    result_T = _by_kernel(logp_mu_TV, logp_pi_TV, mass_floor)
    names = [f.name for f in fields(FullDivergences)]
    mass_error_T = np.maximum(np.abs(result_T["mass_mu"] - 1), np.abs(result_T["mass_pi"] - 1))
    for row in np.flatnonzero(~(mass_error_T < _CLEARLY_NORMALISED)):  # NaN for a row that is not legal
        one = by_numpy(logp_mu_TV[row : row + 1], logp_pi_TV[row : row + 1], mass_floor=mass_floor, first_row=row)
        for name in names:
            result_T[name][row] = getattr(one, name)[0]
    columns = {name: result_T[name].copy() for name in names}
    return FullDivergences(**columns | {"top1_agree": columns["top1_agree"] == 1})


def by_numpy(
    logp_mu_TV: Array, logp_pi_TV: Array, *, mass_floor: float = 1e-4, first_row: int = 0
) -> FullDivergences:
    """`full_divergences` in numpy and float64. Temporaries stay near `cells.CHUNK_BYTES`, whatever T is.

    `first_row` is what errors call the first of these rows."""
    chunks = []
    for rows in row_chunks(*logp_mu_TV.shape):
        logp_mu_RV = _rows_float64(logp_mu_TV, rows, first_row, "behaviour")
        logp_pi_RV = _rows_float64(logp_pi_TV, rows, first_row, "reference")
        cells = Cells(logp_mu_RV, logp_pi_RV)
        _check_mass(cells.mu, rows.start + first_row, "behaviour")
        _check_mass(cells.pi, rows.start + first_row, "reference")
        max_abs_dlogp_R, mass_R = _max_abs_dlogp(cells, mass_floor)
        chunks.append(
            FullDivergences(
                tv=cells.tv(),
                kl=cells.kl(),
                reverse_kl=cells.reverse_kl(),
                chi2=cells.chi2(),
                js=cells.js(),
                leak=cells.leak,
                reverse_leak=cells.reverse_leak,
                max_abs_dlogp=max_abs_dlogp_R,
                max_abs_dlogp_mass=mass_R,
                top1_agree=logp_mu_RV.argmax(axis=1) == logp_pi_RV.argmax(axis=1),
                entropy_mu=_entropy(cells.mu, logp_mu_RV),
                entropy_pi=_entropy(cells.pi, logp_pi_RV),
            )
        )
    return FullDivergences(
        **{f.name: np.concatenate([getattr(chunk, f.name) for chunk in chunks]) for f in fields(FullDivergences)}
    )


def renormalise_on_support(logp_pi_TV: Array, logp_mu_TV: Array) -> tuple[Array, Array]:
    """pi restricted to mu's support and normalised again, the reference side of policy `support`; and the log
    of the mass that it kept, [T] float64.

    The mass that this removes is `FullDivergences.leak` of the arrays as they were, and it is the TV that
    top-p or top-k costs with perfect numerics. The result has pi's shape and type: pass blocks, not a whole
    trace.

    Raises:
        EmptyComparisonError: there are no states or no ids.
        ValueError: the shapes differ, a value is NaN or +inf, or pi has no mass on mu's support. The row is named.
    """
    _check_shapes(logp_mu_TV, logp_pi_TV)
    logp_TV = np.empty_like(logp_pi_TV)
    kept_logmass_T = np.empty(len(logp_pi_TV))
    for rows in row_chunks(*logp_pi_TV.shape):
        logp_mu_RV = _legal_rows(logp_mu_TV, rows, 0, "behaviour")
        logp_pi_RV = _legal_rows(logp_pi_TV, rows, 0, "reference")
        logp_RV = np.where(logp_mu_RV < _DEAD_LOGP, -np.inf, logp_pi_RV)
        top_R1 = logp_RV.max(axis=1, keepdims=True)
        if np.isneginf(top_R1).any():
            row = rows.start + int(np.argmin(top_R1))
            raise ValueError(f"row {row}: the reference has no mass on the behaviour's support")
        kept_R = np.exp(logp_RV - top_R1).sum(axis=1, dtype=np.float64)
        kept_logmass_T[rows] = top_R1[:, 0] + np.log(kept_R)
        logp_TV[rows] = logp_RV - kept_logmass_T[rows, None]
    return logp_TV, kept_logmass_T


def rounding_floor_tv(max_abs_logit: float, dtype: str) -> float:
    """Largest TV that rounding logits of at most this magnitude to `dtype` can cause: tanh(e / 2).

    e is half a unit in the last place at `max_abs_logit`. This is for one rounded side; two sides that round
    apart reach tanh(e). `dtype` is "bfloat16", "float16" or "float32".

    Raises:
        ValueError: another dtype, or a magnitude that is not a finite number >= 0.
    """
    significand_bits = {"bfloat16": 8, "float16": 11, "float32": 24}
    if dtype not in significand_bits:
        raise ValueError(f"no rounding floor for dtype {dtype!r}; one of {', '.join(significand_bits)}")
    if not 0 <= max_abs_logit < np.inf:
        raise ValueError(f"a logit magnitude must be finite and not negative, not {max_abs_logit}")
    if max_abs_logit == 0:
        return 0.0
    exponent = np.frexp(max_abs_logit)[1] - 1
    return float(np.tanh(np.ldexp(1.0, exponent - significand_bits[dtype]) / 2))


def _by_kernel(logp_mu_TV: Array, logp_pi_TV: Array, mass_floor: float) -> Array:
    with np.errstate(divide="ignore"):  # a floor of zero: every id counts
        floor = np.log(mass_floor)
    floor_float32 = np.float32(floor)
    if floor_float32 < floor:  # the smallest float32 log-probability that is not below the floor
        floor_float32 = np.nextafter(floor_float32, np.float32(np.inf))
    result_T = np.empty(len(logp_mu_TV), _RESULT)

    def measure(begin: int, end: int) -> None:
        sides = (*kernel.rows_at(logp_mu_TV, begin), *kernel.rows_at(logp_pi_TV, begin))
        out, _ = kernel.rows_at(result_T, begin)
        kernel.library().full_divergences(*sides, end - begin, logp_mu_TV.shape[1], floor_float32, out)

    kernel.in_pieces(measure, len(result_T), kernel.available_cores())
    return result_T


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


def _check_shapes(logp_mu_TV: Array, logp_pi_TV: Array) -> None:
    if logp_mu_TV.ndim != 2 or logp_mu_TV.shape != logp_pi_TV.shape:
        raise ValueError(f"expected two arrays [T, V], got {logp_mu_TV.shape} and {logp_pi_TV.shape}")
    if logp_mu_TV.size == 0:
        raise EmptyComparisonError("There is no state to compare.")


def _legal_rows(logp_TV: Array, rows: slice, first_row: int, side: str) -> Array:
    logp_RV = logp_TV[rows]
    bad_R = ~(logp_RV < np.inf).all(axis=1)
    if bad_R.any():
        row = first_row + rows.start + int(np.argmax(bad_R))
        raise ValueError(f"row {row} of the {side} log-probabilities has NaN or +inf")
    return logp_RV


def _rows_float64(logp_TV: Array, rows: slice, first_row: int, side: str) -> Array:
    return _legal_rows(logp_TV, rows, first_row, side).astype(np.float64)


def _check_mass(p_RV: Array, first_row: int, side: str) -> None:
    error_R = np.abs(p_RV.sum(axis=1) - 1)
    if (error_R > MASS_TOLERANCE).any():
        worst = int(np.argmax(error_R))
        raise ValueError(
            f"row {first_row + worst} of the {side} log-probabilities is not normalised: its probabilities sum "
            f"to one with an error of {error_R[worst]:.2g}, more than {MASS_TOLERANCE:g}"
        )
