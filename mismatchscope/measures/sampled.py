"""Measures that need nothing but the log-probability of the token that was sampled.

Legend: T = sampled tokens. Everything is float64 and in nats.

The sampled token says the ratio of the two policies at one id; of a whole state it says only
TV(s) >= |mu(a) - pi(a)|. Means over tokens sampled from mu do estimate divergences without bias,
and each field below says which one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..errors import EmptyComparisonError
from . import kernel
from .illegal_row import IllegalRowError

Array = np.ndarray

# A float32 `logit - logsumexp` is off by up to half an ulp of the logit: 4e-6 at logits of 64. Beyond that the
# numbers are not normalised log-probabilities. Values within the tolerance are used as they are, never clamped.
LOG_TOLERANCE = 1e-5

_NEAR = 1e-2  # below it exp(d) - 1 - d is a series


@dataclass(frozen=True, eq=False)
class SampledEstimators:
    """One value per sampled token, a ~ mu. k1, k2, k3 are Schulman's estimators of KL(mu || pi).

    A token outside pi's support has log_ratio -inf and ratio 0, and k1, k2, k3 are then infinite: it is
    counted, not clamped.
    """

    log_ratio: Array
    """d = log pi(a) - log mu(a)."""
    ratio: Array
    """rho = pi(a) / mu(a); its mean estimates 1 - leak."""
    k1: Array
    """-d; its mean is unbiased for KL(mu || pi)."""
    k2: Array
    """d^2 / 2; biased, small variance."""
    k3: Array
    """rho - 1 - d, never negative; its mean estimates KL(mu || pi) - leak."""
    shortfall: Array
    """(1 - rho)_+, in [0, 1]; its mean is unbiased for the mean TV over the visited states."""
    binary_tv: Array
    """|mu(a) - pi(a)|: TV of "this token or another", a lower bound of TV(s)."""
    prob_diff: Array
    """pi(a) - mu(a), signed; its magnitude is `binary_tv`."""
    abs_logprob_diff: Array
    """|d|."""
    exp_abs_diff: Array
    """exp |d|."""
    distance: Array
    """|rho - 1|, to full relative precision."""


def sampled_estimators(logp_mu_T: ArrayLike, logp_pi_T: ArrayLike) -> SampledEstimators:
    """Per-token estimators from log mu(a_t) and log pi(a_t) of the sampled tokens, two arrays [T].

    Raises:
        EmptyComparisonError: there are no tokens.
        ValueError: the shapes differ; a value is NaN, +inf or above `LOG_TOLERANCE`; or log mu is -inf,
            for mu cannot have sampled a token that it gives no probability. The row is named.
    """
    logp_mu_T, logp_pi_T = _checked(logp_mu_T, logp_pi_T)
    with np.errstate(over="ignore"):  # a ratio beyond 1e308 is infinite, and says so
        d_T = logp_pi_T - logp_mu_T
        abs_d_T = np.abs(d_T)
        gap_T = -np.expm1(-abs_d_T)  # 1 - smaller / larger of the two probabilities
        binary_tv_T = np.exp(np.maximum(logp_mu_T, logp_pi_T)) * gap_T
        ratio_T, falls_T = np.exp(d_T), d_T < 0
        distance_T = np.where(falls_T, gap_T, ratio_T * gap_T)
        far_T = np.where(falls_T, -gap_T, distance_T) - d_T  # expm1(d) - d
        return SampledEstimators(
            log_ratio=d_T,
            ratio=ratio_T,
            k1=-d_T,
            k2=d_T**2 / 2,
            k3=np.where(abs_d_T < _NEAR, _k3_series(d_T), far_T),
            shortfall=np.where(falls_T, gap_T, 0.0),
            binary_tv=binary_tv_T,
            prob_diff=np.copysign(binary_tv_T, d_T),
            abs_logprob_diff=abs_d_T,
            exp_abs_diff=np.exp(abs_d_T),
            distance=distance_T,
        )


def k3(log_ratio: Array) -> Array:
    """exp(d) - 1 - d for any shape: never negative, and to full relative precision however small d is.

    `expm1(d) - d` alone loses the digits that the two terms share, so a Taylor series takes over near zero.
    """
    library = kernel.library()
    if library is not None and log_ratio.dtype == np.float64 and log_ratio.flags.c_contiguous:
        values = np.empty(log_ratio.shape)
        library.k3_values(kernel.address(log_ratio), log_ratio.size, kernel.address(values))
        return values
    with np.errstate(over="ignore"):
        return np.where(np.abs(log_ratio) < _NEAR, _k3_series(log_ratio), np.expm1(log_ratio) - log_ratio)


def _k3_series(d: Array) -> Array:
    """exp(d) - 1 - d to full precision for |d| < `_NEAR`; anything beyond."""
    with np.errstate(over="ignore", invalid="ignore"):
        return d * d * (0.5 + d * (1 / 6 + d * (1 / 24 + d * (1 / 120 + d * (1 / 720 + d / 5040)))))


def shortfall(log_ratio: Array) -> Array:
    """(1 - rho)_+ for any shape, in [0, 1]. Its mean under mu is the total variation, leak included."""
    return -np.expm1(np.minimum(log_ratio, 0.0))


def _checked(logp_mu_T: ArrayLike, logp_pi_T: ArrayLike) -> tuple[Array, Array]:
    logp_mu_T = np.asarray(logp_mu_T, dtype=np.float64)
    logp_pi_T = np.asarray(logp_pi_T, dtype=np.float64)
    if logp_mu_T.ndim != 1 or logp_mu_T.shape != logp_pi_T.shape:
        raise ValueError(f"expected two arrays [T], got {logp_mu_T.shape} and {logp_pi_T.shape}")
    if logp_mu_T.size == 0:
        raise EmptyComparisonError("There is no sampled token to compare.")
    for side, logp_T in (("behaviour", logp_mu_T), ("reference", logp_pi_T)):
        _reject(~(logp_T <= LOG_TOLERANCE), logp_T, f"the {side} log-probability is no number below zero")
    _reject(np.isneginf(logp_mu_T), logp_mu_T, "the behaviour cannot have sampled a token of probability zero")
    return logp_mu_T, logp_pi_T


def _reject(bad_T: Array, logp_T: Array, why: str) -> None:
    if bad_T.any():
        row = int(np.argmax(bad_T))
        raise IllegalRowError(row, f": {why} ({logp_T[row]})")
