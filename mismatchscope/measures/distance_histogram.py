"""How large |Δ log p| is, in bins of a quarter of an octave: enough to tell whether one set lies above another.

Shapes: N values, B bins.
"""

from __future__ import annotations

import numpy as np

from .sampled import LOG_TOLERANCE

_BITS = 50  # a float64's exponent and the first two bits of its fraction
_LOWEST, _HIGHEST = (np.array([edge]).view(np.int64)[0] >> _BITS for edge in (2.0**-30, 2.0**10))
BINS = int(_HIGHEST - _LOWEST) + 2


class DistanceHistogram:
    """Counts of values that are not negative; those below 2⁻³⁰ share a bin, and so do those beyond 2¹⁰."""

    def __init__(self) -> None:
        self._count_B = np.zeros(BINS, dtype=np.int64)

    @property
    def n(self) -> int:
        return int(self._count_B.sum())

    def add(self, value_N: np.ndarray) -> None:
        bin_N = (np.ascontiguousarray(value_N, dtype=np.float64).view(np.int64) >> _BITS) - (_LOWEST - 1)
        self._count_B += np.bincount(np.clip(bin_N, 0, BINS - 1), minlength=BINS)

    def merge(self, other: DistanceHistogram) -> None:
        self._count_B += other._count_B

    def chance_above(self, other: DistanceHistogram) -> float:
        """Chance that a value of this one is larger than one of the other; ties count half."""
        below_B = np.cumsum(other._count_B) - other._count_B
        return float(self._count_B @ (below_B + other._count_B / 2)) / (self.n * other.n)


def scored_distances(logp_mu_N: np.ndarray, logp_pi_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(|Δ log p| [N], whether both policies have a log-prob of the token [N]); exact zeros stand for none."""
    with np.errstate(invalid="ignore"):
        scored_N = (logp_mu_N <= LOG_TOLERANCE) & (logp_pi_N <= LOG_TOLERANCE) & (logp_mu_N != 0) & (logp_pi_N != 0)
        scored_N &= np.isfinite(logp_mu_N) & np.isfinite(logp_pi_N)
        return np.abs(logp_pi_N - logp_mu_N), scored_N
