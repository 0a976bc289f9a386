"""Exact divergences of two policies at each state, from full-vocabulary log-probabilities.

Legend: T = states, V = vocabulary, C = cells of a partition of the vocabulary (single ids, or ids and a tail),
R = rows of one chunk. Inputs are natural logs; everything is accumulated in float64.

An id is outside a policy's support when its probability is zero in float64: its log-probability is -inf, or
the large negative number that some engines mask with. All sums run over terms that cannot be negative and do
not cancel, so two policies that differ by 1e-6 in a logit still get their divergences to many digits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np

from mismatchscope.errors import EmptyComparisonError
from mismatchscope.measures.sampled import k3

Array = np.ndarray

# Rows must sum to one within this. float32 rounding stays below it; a softmax denominator that was summed
# one float32 after another does not (1e-4 at 150k ids), and its error would be reported as TV.
MASS_TOLERANCE = 1e-5

CHUNK_BYTES = 64 * 2**20
_LIVE_ARRAYS = 14  # float64 arrays [R, C] that are alive at once while a chunk is measured


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
    hold -inf on both sides. Temporaries stay near `CHUNK_BYTES`, whatever T is.

    Raises:
        EmptyComparisonError: there are no states or no ids.
        ValueError: the shapes differ, a value is NaN or +inf, or a row does not sum to one within
            `MASS_TOLERANCE`. The row is named.
    """
    _check_shapes(logp_mu_TV, logp_pi_TV)
    chunks = []
    for rows in row_chunks(*logp_mu_TV.shape):
        logp_mu_RV = _rows_float64(logp_mu_TV, rows, "behaviour")
        logp_pi_RV = _rows_float64(logp_pi_TV, rows, "reference")
        cells = Cells(logp_mu_RV, logp_pi_RV)
        _check_mass(cells.mu, rows, "behaviour")
        _check_mass(cells.pi, rows, "reference")
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


class Cells:
    """Two distributions over the same cells, [R, C] float64 log-probabilities, and their f-divergences [R].

    Every divergence is a sum over cells of terms that are never negative. A subset of the cells thus gives a
    lower bound, and the sums of two disjoint sets of cells add up: `topk` builds its intervals on both facts.
    """

    def __init__(self, logp_mu_RC: Array, logp_pi_RC: Array) -> None:
        self.logp_mu, self.logp_pi = logp_mu_RC, logp_pi_RC
        with np.errstate(over="ignore"):  # a sum of infinity is caught as not normalised
            self.mu, self.pi = np.exp(logp_mu_RC), np.exp(logp_pi_RC)
        in_mu, in_pi = self.mu > 0, self.pi > 0
        self.both = in_mu & in_pi
        self.leak = np.sum(self.pi, axis=1, where=~in_mu)
        self.reverse_leak = np.sum(self.mu, axis=1, where=~in_pi)
        # d = log pi - log mu, and 0 outside the common support, where the two leaks stand for the terms.
        self.d = np.subtract(logp_pi_RC, logp_mu_RC, out=np.zeros_like(self.mu), where=self.both)
        self.abs_d = np.abs(self.d)
        self.gap = -np.expm1(-self.abs_d)  # 1 - smaller / larger of the two probabilities

    def tv(self) -> Array:
        """1/2 sum |mu - pi|, with |mu - pi| = max(mu, pi) (1 - exp -|d|), which does not cancel."""
        return (np.sum(np.maximum(self.mu, self.pi) * self.gap, axis=1) + self.leak + self.reverse_leak) / 2

    def kl(self) -> Array:
        """KL(mu || pi) = leak + sum mu (exp(d) - 1 - d)."""
        kl_R = self.leak + np.sum(_kl_terms(self.mu, self.pi, self.d), axis=1)
        return np.where(self.reverse_leak > 0, np.inf, kl_R)

    def reverse_kl(self) -> Array:
        """KL(pi || mu) = reverse leak + sum pi (exp(-d) - 1 + d)."""
        kl_R = self.reverse_leak + np.sum(_kl_terms(self.pi, self.mu, -self.d), axis=1)
        return np.where(self.leak > 0, np.inf, kl_R)

    def chi2(self) -> Array:
        """chi^2(pi || mu) = sum (pi - mu)^2 / mu; (pi - mu)^2 / mu = max(mu, pi^2 / mu) (1 - exp -|d|)^2."""
        with np.errstate(over="ignore"):
            weight_RC = np.exp(np.maximum(self.logp_mu, self.logp_pi + self.d))
        chi2_R = self.reverse_leak + np.sum(weight_RC * self.gap**2, axis=1)
        return np.where(self.leak > 0, np.inf, chi2_R)

    def js(self) -> Array:
        """Jensen-Shannon: sum 1/4 (mu + pi) (t |d| + log(1 - t^2)) with t = tanh(|d| / 2)."""
        t_RC = self.gap / (2 - self.gap)
        # The same logarithm twice: log1p(-t^2) is exact for small d, the other where t has rounded to one.
        log_sech2_RC = np.where(
            self.abs_d < 1,
            np.log1p(-(np.minimum(t_RC, 0.5) ** 2)),
            -self.abs_d - 2 * np.log1p(-self.gap / 2),
        )
        terms_RC = (self.mu + self.pi) * (t_RC * self.abs_d + log_sech2_RC)
        return np.sum(terms_RC, axis=1) / 4 + np.log(2) / 2 * (self.leak + self.reverse_leak)


def renormalise_on_support(logp_pi_TV: Array, logp_mu_TV: Array) -> Array:
    """pi restricted to mu's support and normalised again: the reference side of policy `support`.

    The mass that this removes is `FullDivergences.leak` of the arrays as they were, and it is the TV that
    top-p or top-k costs with perfect numerics. Returns float64 [T, V]: pass blocks, not a whole trace.

    Raises:
        EmptyComparisonError: there are no states or no ids.
        ValueError: the shapes differ, a value is NaN or +inf, or pi has no mass on mu's support. The row is named.
    """
    _check_shapes(logp_mu_TV, logp_pi_TV)
    every_row = slice(0, len(logp_mu_TV))
    logp_mu_TV = _rows_float64(logp_mu_TV, every_row, "behaviour")
    logp_TV = _rows_float64(logp_pi_TV, every_row, "reference")
    logp_TV[np.exp(logp_mu_TV) == 0] = -np.inf
    kept_T = np.exp(logp_TV).sum(axis=1)
    if not kept_T.all():
        raise ValueError(f"row {int(np.argmin(kept_T))}: the reference has no mass on the behaviour's support")
    return logp_TV - np.log(kept_T)[:, None]


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


def row_chunks(rows: int, columns: int) -> Iterator[slice]:
    """Row ranges whose float64 temporaries stay near `CHUNK_BYTES` (one row at least)."""
    step = max(1, CHUNK_BYTES // (8 * _LIVE_ARRAYS * columns))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def _kl_terms(p: Array, q: Array, d: Array) -> Array:
    """p (exp(d) - 1 - d) with d = log q - log p, without forming exp(d) where it may overflow."""
    near = d < 1
    return np.where(near, p * k3(np.where(near, d, 0.0)), q - p * (1 + d))


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


def _rows_float64(logp_TV: Array, rows: slice, side: str) -> Array:
    logp_RV = logp_TV[rows].astype(np.float64)
    bad_R = ~(logp_RV < np.inf).all(axis=1)
    if bad_R.any():
        row = rows.start + int(np.argmax(bad_R))
        raise ValueError(f"row {row} of the {side} log-probabilities has NaN or +inf")
    return logp_RV


def _check_mass(p_RV: Array, rows: slice, side: str) -> None:
    error_R = np.abs(p_RV.sum(axis=1) - 1)
    if (error_R > MASS_TOLERANCE).any():
        worst = int(np.argmax(error_R))
        raise ValueError(
            f"row {rows.start + worst} of the {side} log-probabilities is not normalised: its probabilities sum "
            f"to one with an error of {error_R[worst]:.2g}, more than {MASS_TOLERANCE:g}"
        )
