"""The full distributions of two traces at the states that both have, read a few at a time.

Shapes: N aligned rows of a block, M of them with a full distribution, R distributions of a trace, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..errors import TraceError
from ..traces.reader import Trace
from ..traces.schema import DISTRIBUTIONS

NEGLIGIBLE_MASS = 1e-6  # on padding ids: below it they are cut off, above it they are a leak and counted
SCAN_BYTES = 64 * 1024 * 1024  # of the file at a time: a few columns of it bring whole pages into memory


class FullSide:
    """The distributions of one trace, found by the row of tokens.parquet that each belongs to."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.width: int = trace.distribution_width
        self._row_R = trace.full_rows()

    def find(self, row_N: np.ndarray) -> np.ndarray:
        """Where in the file each row has its distribution [N], -1 where it has none."""
        at_N = np.searchsorted(self._row_R, row_N)
        found_N = self._row_R[np.minimum(at_N, len(self._row_R) - 1)] == row_N
        return np.where(found_N, at_N, -1)

    def read(self, at_M: np.ndarray) -> np.ndarray:
        """float32 [M, V]; adjacent ones are a view of the file. Raises `TraceError` for NaN and +inf."""
        if not len(at_M):
            return np.zeros((0, self.width), dtype=np.float32)
        logp_MV = self.trace.full_logprobs(int(at_M[0]), int(at_M[-1]) + 1)
        if len(logp_MV) > len(at_M):
            logp_MV = logp_MV[at_M - at_M[0]]
        bad_M = ~(logp_MV.max(axis=1) < np.inf)  # the maximum hands NaN on
        if bad_M.any():
            at = at_M[np.argmax(bad_M)]
            raise TraceError(f"{self.trace.path / DISTRIBUTIONS}: distribution {at} holds NaN or +inf.")
        return logp_MV

    def entries(self, at_M: np.ndarray, id_M: np.ndarray) -> np.ndarray:
        """float64 [M]: one log-prob of each of these distributions, whatever it is; the rest is not read."""
        if not len(at_M):
            return np.zeros(0)
        logp_MV = self.trace.full_logprobs(int(at_M[0]), int(at_M[-1]) + 1)
        return logp_MV[at_M - at_M[0], id_M].astype(np.float64)

    def mass_beyond(self, width: int) -> float:
        """The largest mass that a distribution has on the ids from `width` on."""
        largest = 0.0
        rows = max(1, SCAN_BYTES // (4 * self.width))
        for start in range(0, len(self._row_R), rows):
            logp_MV = self.trace.full_logprobs(start, min(start + rows, len(self._row_R)))[:, width:]
            mass_M = np.exp(logp_MV.astype(np.float64)).sum(axis=1)
            largest = max(largest, float(np.nanmax(mass_M)))
        return largest


@dataclass(frozen=True, eq=False)
class FullStates:
    """The distributions of both sides, or of π alone (`mu` None) where μ has its top-k.

    `width` is the common vocabulary. `padding_mass` is the largest mass that a state has on ids that one side alone
    knows, None where that was not observed.
    """

    mu: FullSide | None
    pi: FullSide
    width: int
    padding_mass: float | None = None

    @classmethod
    def of(cls, behavior: Trace, reference: Trace) -> FullStates | None:
        """None where there is nothing to read."""
        if not reference.manifest.counts.full_states:
            return None
        if not behavior.manifest.counts.full_states:
            crossed = "topk_ids" in behavior.token_columns and "topk_ids" not in reference.token_columns
            return cls(None, pi := FullSide(reference), pi.width) if crossed else None
        mu, pi = FullSide(behavior), FullSide(reference)
        narrow, wide = sorted((mu, pi), key=lambda side: side.width)
        mass = 0.0
        if narrow.width < wide.width:
            mass = wide.mass_beyond(narrow.width)
        kept = narrow if mass < NEGLIGIBLE_MASS else wide
        return cls(mu, pi, kept.width, mass)

    def pieces(
        self, row_mu_N: np.ndarray, row_pi_N: np.ndarray, max_bytes: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(which of these states, their log μ, their log π), as many at a time as `max_bytes` allows (or one)."""
        if self.mu is None:
            return
        at_mu_N, at_pi_N = self.mu.find(row_mu_N), self.pi.find(row_pi_N)
        index_M = np.flatnonzero((at_mu_N >= 0) & (at_pi_N >= 0))
        fitting = max(1, max_bytes // (2 * 4 * self.width))
        for start in range(0, len(index_M), fitting):
            part_M = index_M[start : start + fitting]
            logp_mu_MV, logp_pi_MV = self.mu.read(at_mu_N[part_M]), self.pi.read(at_pi_N[part_M])
            yield part_M, fitted(logp_mu_MV, self.width), fitted(logp_pi_MV, self.width)

    def one_sided(self, row_mu_N: np.ndarray, row_pi_N: np.ndarray) -> int:
        """How many of these states have a distribution on one side alone."""
        if self.mu is None:
            return 0
        return int(((self.mu.find(row_mu_N) >= 0) != (self.pi.find(row_pi_N) >= 0)).sum())

    def of_reference(self, row_pi_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(which of these states π was seen whole at, its distributions there)."""
        at_N = self.pi.find(row_pi_N)
        index_M = np.flatnonzero(at_N >= 0)
        return index_M, self.pi.read(at_N[index_M])


def fitted(logp_MV: np.ndarray, width: int) -> np.ndarray:
    """Cut to, or filled up with -inf to, the common vocabulary."""
    missing = width - logp_MV.shape[1]
    if missing <= 0:
        return logp_MV[:, :width]
    return np.pad(logp_MV, ((0, 0), (0, missing)), constant_values=-np.inf)
