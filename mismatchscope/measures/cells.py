"""The f-divergences of two distributions over the same cells, in numpy.

Legend: C = cells of a partition of the vocabulary (single ids, or ids and a tail), R = rows of one chunk. Inputs
are natural logs; everything is accumulated in float64.

A cell is outside a policy's support when its probability is zero in float64: its log-probability is -inf, or
the large negative number that some engines mask with. All sums run over terms that cannot be negative and do
not cancel, so two policies that differ by 1e-6 in a logit still get their divergences to many digits.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .sampled import k3

Array = np.ndarray

CHUNK_BYTES = 64 * 2**20
# Rows must sum to one within this. float32 rounding stays below it; a softmax denominator that was summed
# one float32 after another does not (1e-4 at 150k ids), and its error would be reported as TV.
MASS_TOLERANCE = 1e-5

_LIVE_ARRAYS = 14  # float64 arrays [R, C] that are alive at once while a chunk is measured


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


def row_chunks(rows: int, columns: int) -> Iterator[slice]:
    """Row ranges whose float64 temporaries stay near `CHUNK_BYTES` (one row at least)."""
    step = max(1, CHUNK_BYTES // (8 * _LIVE_ARRAYS * columns))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def _kl_terms(p: Array, q: Array, d: Array) -> Array:
    """p (exp(d) - 1 - d) with d = log q - log p, without forming exp(d) where it may overflow."""
    near = d < 1
    return np.where(near, p * k3(np.where(near, d, 0.0)), q - p * (1 + d))
