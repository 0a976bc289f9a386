"""Sums over runs of sampled tokens of what each says of the two policies, in one pass over the log-probs.

A segment is a run of adjacent tokens that share every label somebody asks for: a response, a turn of it, a version
of the weights. Whatever is a mean, a share of mass or a correlation over such groups is a function of these sums.

`token_sums.c` reads both columns once. `_sums_by_numpy` makes an array of every figure: where there is no C
compiler, and as what the kernel is tested against.

Legend: N = sampled tokens; U = segments, U1 = U + 1 boundaries; G = groups of segments. d = log pi - log mu of the
sampled token, rho = exp(d). In nats, float64.
"""

from __future__ import annotations

from ctypes import CDLL
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from . import kernel
from .sampled import LOG_TOLERANCE, SampledEstimators, sampled_estimators

Array = np.ndarray

RATIO_BAND = (0.8, 1.2)
"""Outside which ratios are counted: one clipping step of PPO's usual ε."""
_LOG_BAND = np.log(RATIO_BAND)


@dataclass(frozen=True, eq=False)
class TokenSums:
    """One value a segment, float64 [U]: sums over its tokens, and their extremes, which are infinite (+inf the
    smallest, -inf the largest) where it has none."""

    tokens: Array
    """Tokens that are in the sums."""
    rejected: Array
    """Tokens that count and whose log-probs are not legal, so that they are in no sum: NaN or above 0 on a side, or
    -inf under mu, which drew them."""
    log_ratio: Array
    """d; -inf once a token is outside pi's support. Less its sign it is k1."""
    log_ratio_square: Array
    """d^2, twice k2."""
    abs_logprob_diff: Array
    """|d|."""
    k3: Array
    """rho - 1 - d."""
    ratio: Array
    """rho."""
    outside_band: Array
    """Tokens whose rho is outside `RATIO_BAND`."""
    shortfall: Array
    """(1 - rho)_+."""
    prob_diff: Array
    """pi(a) - mu(a)."""
    abs_prob_diff: Array
    """|pi(a) - mu(a)|."""
    exp_abs_diff: Array
    """exp |d|."""
    prob_mu: Array
    """mu(a)."""
    prob_pi: Array
    """pi(a)."""
    prob_mu_square: Array
    prob_pi_square: Array
    prob_product: Array
    """mu(a) pi(a)."""
    smallest_log_ratio: Array
    smallest_abs_logprob_diff: Array
    smallest_k3: Array
    smallest_prob_diff: Array
    smallest_abs_prob_diff: Array
    largest_log_ratio: Array
    largest_k3: Array
    largest_prob_diff: Array

    @property
    def largest_ratio(self) -> Array:
        with np.errstate(over="ignore"):
            return np.exp(self.largest_log_ratio)

    @property
    def largest_abs_logprob_diff(self) -> Array:
        return np.maximum(self.largest_log_ratio, -self.smallest_log_ratio)

    @property
    def largest_abs_prob_diff(self) -> Array:
        return np.maximum(self.largest_prob_diff, -self.smallest_prob_diff)


_NAMES = tuple(field.name for field in fields(TokenSums))
TOKEN_SUMS = np.dtype([(name, np.float64) for name in _NAMES])
"""A row of results, in the order of the C struct."""


def token_sums(
    logp_mu_N: ArrayLike,
    logp_pi_N: ArrayLike,
    offsets_U1: ArrayLike,
    *,
    counts_N: ArrayLike | None = None,
    threads: int = 1,
) -> TokenSums:
    """Sums of each segment: tokens `offsets_U1[u]` up to `offsets_U1[u + 1]`, which may be none.

    Args:
        logp_mu_N, logp_pi_N: log-probs of the sampled tokens; float32 is read as it is, other types as float64.
        counts_N: which tokens count, a boolean [N]; None where all do. Arrays [B, T] of padded responses are
            `ravel()`ed with their mask, and their boundaries are multiples of T.
        threads: share the segments; other threads run meanwhile, whatever it is.

    Raises:
        ValueError: shapes differ, or the boundaries are not rising integers within the tokens.
    """
    mu_N, pi_N = _columns(logp_mu_N, logp_pi_N)
    offsets_U1 = _checked_offsets(offsets_U1, len(mu_N))
    if counts_N is not None:
        counts_N = np.ascontiguousarray(counts_N)
        if counts_N.dtype != bool or counts_N.shape != mu_N.shape:
            raise ValueError(
                f"expected a boolean for each of {len(mu_N)} tokens, got {counts_N.dtype} {counts_N.shape}"
            )
    library = kernel.library()
    if library is None:
        table_U = _sums_by_numpy(mu_N, pi_N, offsets_U1, counts_N)
    else:
        table_U = _sums_by_kernel(library, mu_N, pi_N, offsets_U1, counts_N, threads)
    return TokenSums(**{name: table_U[name] for name in _NAMES})


class TokenFigures(NamedTuple):
    """What each token says, [N], beside the sums of each segment."""

    log_ratio_N: Array
    k3_N: Array
    prob_diff_N: Array
    sums: TokenSums


def token_figures(logp_mu_N: Array, logp_pi_N: Array, offsets_U1: Array) -> TokenFigures:
    """Figures of every token, and their sums by segment; all count, and the segments hold them all.

    Raises what `sampled.sampled_estimators` does, and `ValueError` for boundaries as `token_sums` does.
    """
    mu_N, pi_N = (np.ascontiguousarray(each, np.float64) for each in (logp_mu_N, logp_pi_N))
    offsets_U1 = _checked_offsets(offsets_U1, len(mu_N))
    library = kernel.library()
    if library is None:
        sampled = sampled_estimators(mu_N, pi_N)
        sums = token_sums(mu_N, pi_N, offsets_U1)
        return TokenFigures(sampled.log_ratio, sampled.k3, sampled.prob_diff, sums)
    log_ratio_N, k3_N, prob_diff_N = (np.empty(len(mu_N)) for _ in range(3))
    table_U = np.empty(len(offsets_U1) - 1, TOKEN_SUMS)
    library.token_figures_and_sums(
        *(
            kernel.address(mu_N),
            kernel.address(pi_N),
            kernel.address(offsets_U1, np.int64),
            len(table_U),
            _LOG_BAND.ctypes.data,
        ),
        *(each.ctypes.data for each in (log_ratio_N, k3_N, prob_diff_N, table_U)),
    )
    sums = TokenSums(**{name: table_U[name] for name in _NAMES})
    if not len(mu_N) or sums.rejected.any():
        sampled_estimators(mu_N, pi_N)  # says which one, and why
    return TokenFigures(log_ratio_N, k3_N, prob_diff_N, sums)


def _sums_by_kernel(
    library: CDLL, mu_N: Array, pi_N: Array, offsets_U1: Array, counts_N: Array | None, threads: int
) -> Array:
    table_U = np.empty(len(offsets_U1) - 1, TOKEN_SUMS)
    is_float = int(mu_N.dtype == np.float32)
    counts = None if counts_N is None else counts_N.ctypes.data
    columns = (mu_N.ctypes.data, pi_N.ctypes.data, is_float, counts)

    def measure(begin: int, end: int) -> None:
        offsets, out = offsets_U1[begin:].ctypes.data, table_U[begin:].ctypes.data
        library.token_sums(*columns, offsets, end - begin, _LOG_BAND.ctypes.data, out)

    if threads == 1:
        measure(0, len(table_U))
    else:
        kernel.in_pieces(measure, len(table_U), threads)
    return table_U


def _sums_by_numpy(mu_N: Array, pi_N: Array, offsets_U1: Array, counts_N: Array | None) -> Array:
    first, last = offsets_U1[[0, -1]]
    mu_N, pi_N = mu_N[first:last].astype(np.float64), pi_N[first:last].astype(np.float64)
    counts_N = np.ones(len(mu_N), dtype=bool) if counts_N is None else counts_N[first:last]
    legal_N = (mu_N <= LOG_TOLERANCE) & (pi_N <= LOG_TOLERANCE) & (mu_N > -np.inf)
    segment_N = np.repeat(np.arange(len(offsets_U1) - 1), np.diff(offsets_U1))
    used_N = counts_N & legal_N
    segment_L, groups = segment_N[used_N], len(offsets_U1) - 1
    found = _figures(mu_N[used_N], pi_N[used_N])
    table_U = np.empty(groups, TOKEN_SUMS)
    for name in _NAMES:
        figure = name.removeprefix("smallest_").removeprefix("largest_")
        if name == "rejected":
            table_U[name] = np.bincount(segment_N[counts_N & ~legal_N], minlength=groups)
        else:
            table_U[name] = _pooled(name, found[figure], segment_L, groups)
    return table_U


def _figures(mu_L: Array, pi_L: Array) -> dict[str, Array]:
    """By the names of `TokenSums`; L tokens, maybe none."""
    sampled = sampled_estimators(mu_L, pi_L) if len(mu_L) else SampledEstimators(*[np.zeros(0)] * 11)
    p_mu_L, p_pi_L = np.exp(mu_L), np.exp(pi_L)
    return {
        "tokens": np.ones(len(mu_L)),
        "log_ratio": sampled.log_ratio,
        "log_ratio_square": sampled.log_ratio**2,
        "abs_logprob_diff": sampled.abs_logprob_diff,
        "k3": sampled.k3,
        "ratio": sampled.ratio,
        "outside_band": (sampled.log_ratio < _LOG_BAND[0]) | (sampled.log_ratio > _LOG_BAND[1]),
        "shortfall": sampled.shortfall,
        "prob_diff": sampled.prob_diff,
        "abs_prob_diff": sampled.binary_tv,
        "exp_abs_diff": sampled.exp_abs_diff,
        "prob_mu": p_mu_L,
        "prob_pi": p_pi_L,
        "prob_mu_square": p_mu_L**2,
        "prob_pi_square": p_pi_L**2,
        "prob_product": p_mu_L * p_pi_L,
    }


def _pooled(name: str, value_U: Array, group_U: Array, groups: int) -> Array:
    """Sums of the groups [G], or their smallest or largest value, as the name says."""
    if name.startswith("smallest_"):
        pooled_G = np.full(groups, np.inf)
        np.minimum.at(pooled_G, group_U, value_U)
    elif name.startswith("largest_"):
        pooled_G = np.full(groups, -np.inf)
        np.maximum.at(pooled_G, group_U, value_U)
    else:
        pooled_G = np.bincount(group_U, weights=value_U, minlength=groups)
    return pooled_G


def _columns(logp_mu_N: ArrayLike, logp_pi_N: ArrayLike) -> tuple[Array, Array]:
    """Both as adjacent float32, or both as float64."""
    mu_N, pi_N = np.asarray(logp_mu_N), np.asarray(logp_pi_N)
    if mu_N.ndim != 1 or mu_N.shape != pi_N.shape:
        raise ValueError(f"expected two arrays [N], got {mu_N.shape} and {pi_N.shape}")
    kind = np.float32 if mu_N.dtype == pi_N.dtype == np.float32 else np.float64
    return np.ascontiguousarray(mu_N, kind), np.ascontiguousarray(pi_N, kind)


def _checked_offsets(offsets_U1: ArrayLike, tokens: int) -> Array:
    offsets_U1 = np.asarray(offsets_U1)
    if offsets_U1.ndim != 1 or not offsets_U1.size or offsets_U1.dtype.kind not in "iu":
        raise ValueError("segment boundaries must be integers, one more than there are segments")
    offsets_U1 = np.ascontiguousarray(offsets_U1, np.int64)
    if offsets_U1[0] < 0 or offsets_U1[-1] > tokens or (np.diff(offsets_U1) < 0).any():
        raise ValueError(f"segment boundaries must rise from 0 to {tokens}, the number of tokens, at most")
    return offsets_U1
