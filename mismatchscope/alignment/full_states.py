"""The full distributions of two traces at the rows that both have, read a few rows at a time.

Shapes: N aligned rows, M of them with a full distribution, V vocabulary (V_mu, V_pi on the two sides).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import TraceError
from ..traces.reader import Trace
from ..traces.schema import DISTRIBUTIONS

NEGLIGIBLE_MASS = 1e-6  # on padding ids: below it they are cut off, above it they are a leak and counted
SCAN_BYTES = 64 * 1024 * 1024  # of the file at a time: a few columns of it bring whole pages into memory


@dataclass(frozen=True, eq=False)
class FullSide:
    """The distributions of one trace at aligned rows: `row_M` the rows, `at_M` where in the file they are."""

    trace: Trace
    row_M: np.ndarray
    at_M: np.ndarray

    @classmethod
    def of(cls, trace: Trace, kept_N: np.ndarray) -> FullSide:
        """`kept_N` marks the rows of tokens.parquet that are aligned."""
        full_row_R = trace.full_rows()
        at_M = np.flatnonzero(kept_N[full_row_R])
        return cls(trace, np.cumsum(kept_N)[full_row_R[at_M]] - 1, at_M)

    def only(self, chosen_M: np.ndarray) -> FullSide:
        return FullSide(self.trace, self.row_M[chosen_M], self.at_M[chosen_M])

    def read(self, start: int, stop: int) -> np.ndarray:
        """float32 [stop - start, V]; adjacent ones are a view of the file. Raises `TraceError` for NaN and +inf."""
        at_M = self.at_M[start:stop]
        if not len(at_M):
            return np.zeros((0, self.trace.vocabulary_size), dtype=np.float32)
        logp_MV = self.trace.full_logprobs(at_M[0], at_M[-1] + 1)
        if len(logp_MV) > len(at_M):
            logp_MV = logp_MV[at_M - at_M[0]]
        bad_M = ~(logp_MV.max(axis=1) < np.inf)  # the maximum hands NaN on
        if bad_M.any():
            at = at_M[np.argmax(bad_M)]
            raise TraceError(f"{self.trace.path / DISTRIBUTIONS}: distribution {at} holds NaN or +inf.")
        return logp_MV

    def mass_beyond(self, width: int) -> float:
        """The largest mass that a row has on the ids from `width` on."""
        largest = 0.0
        rows = max(1, SCAN_BYTES // (4 * self.trace.vocabulary_size))
        for start in range(0, len(self.at_M), rows):
            at_M = self.at_M[start : start + rows]
            logp_MV = self.trace.full_logprobs(at_M[0], at_M[-1] + 1)[:, width:]
            mass_M = np.exp(logp_MV[at_M - at_M[0]].astype(np.float64)).sum(axis=1)
            largest = max(largest, float(mass_M.max()))
        return largest


@dataclass(frozen=True, eq=False)
class FullStates:
    """The aligned rows with a full distribution on both sides, or of π alone (`mu` None) where μ has its top-k.

    `width` is the common vocabulary. `padding_mass` is the largest mass that a row has on ids that one side alone
    knows, None where that was not observed. `one_sided` counts the distributions that the other side lacks.
    """

    mu: FullSide | None
    pi: FullSide
    width: int
    padding_mass: float | None = None
    one_sided: int = 0

    @classmethod
    def of(
        cls, behavior: Trace, reference: Trace, kept_mu_N: np.ndarray, kept_pi_N: np.ndarray
    ) -> FullStates | None:
        """`kept_*_N` mark the aligned rows of each tokens.parquet. None where there is nothing to read."""
        if not reference.manifest.counts.full_states:
            return None
        pi = FullSide.of(reference, kept_pi_N)
        if not behavior.manifest.counts.full_states:
            crossed = "topk_ids" in behavior.token_columns and "topk_ids" not in reference.token_columns
            return cls(None, pi, reference.vocabulary_size) if crossed else None
        mu = FullSide.of(behavior, kept_mu_N)
        _, mu_M, pi_M = np.intersect1d(mu.row_M, pi.row_M, assume_unique=True, return_indices=True)
        one_sided = len(mu.row_M) + len(pi.row_M) - 2 * len(mu_M)
        mu, pi = mu.only(mu_M), pi.only(pi_M)
        narrow, wide = sorted((mu, pi), key=lambda side: side.trace.vocabulary_size)
        mass = wide.mass_beyond(narrow.trace.vocabulary_size)
        kept = narrow if mass < NEGLIGIBLE_MASS else wide
        return cls(mu, pi, kept.trace.vocabulary_size, mass, one_sided)

    def cuts(self, start: int, stop: int, max_bytes: int) -> list[int]:
        """Where to cut the rows start … stop-1 so that the distributions of a piece fit in `max_bytes`."""
        first, last = np.searchsorted(self.pi.row_M, [start, stop])
        fitting = max(1, max_bytes // (2 * 4 * self.width))
        return self.pi.row_M[first + fitting : last : fitting].tolist()

    def read(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """Which of the aligned rows start … stop-1 have a distribution, counted from `start`; log μ and log π."""
        first, last = np.searchsorted(self.pi.row_M, [start, stop])
        index_M, logp_pi_MV = self.pi.row_M[first:last] - start, self.pi.read(first, last)
        if self.mu is None:
            return index_M, None, logp_pi_MV
        return index_M, _fitted(self.mu.read(first, last), self.width), _fitted(logp_pi_MV, self.width)


def _fitted(logp_MV: np.ndarray, width: int) -> np.ndarray:
    """Cut to, or filled up with -inf to, the common vocabulary."""
    missing = width - logp_MV.shape[1]
    if missing <= 0:
        return logp_MV[:, :width]
    return np.pad(logp_MV, ((0, 0), (0, missing)), constant_values=-np.inf)
