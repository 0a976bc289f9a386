"""The tokens of a block, added up once: by runs of tokens that share every label that somebody asks for.

Shapes: S responses, R recorded tokens, N tokens that count, U segments, B bins of log-prob, F figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..measures.binned_sums import binned_sums
from .block import LogBlock

Array = np.ndarray

POSITION_EDGES = np.array([0, 1, 4, 16, 64, 256, 1024, 4096, 16384])
"""The first position of each bin; the last one is open."""
PROBABILITY_EDGES = np.array([0.01, 0.1, 0.5, 0.9, 0.99])
"""Between bins of μ(a)."""
_LOGPROB_EDGES = np.log(PROBABILITY_EDGES)


@dataclass(frozen=True, eq=False)
class Segments:
    """Runs of tokens that count, of one response, turn, version and bin of position, in the order of the block."""

    block: LogBlock
    sequence_U: Array
    position_bin_U: Array
    turn_U: Array | None
    version_U: Array | None
    sum_UBF: Array
    max_UB: Array
    """Largest |μ(a) − π(a)|; −inf where a bin has no token."""

    @cached_property
    def sum_UF(self) -> Array:
        total: Array = self.sum_UBF.sum(axis=1)
        return total

    @cached_property
    def max_U(self) -> Array:
        largest: Array = self.max_UB.max(axis=1)
        return largest

    @cached_property
    def first_S(self) -> Array:
        """The first segment of each response."""
        return np.searchsorted(self.sequence_U, np.arange(len(self.block.recorded_S)))

    @cached_property
    def sum_SF(self) -> Array:
        total: Array = np.add.reduceat(self.sum_UF, self.first_S, axis=0)
        return total

    @cached_property
    def max_S(self) -> Array:
        largest: Array = np.maximum.reduceat(self.max_U, self.first_S)
        return largest


def segments_of(block: LogBlock) -> Segments:
    """Every token that counts is in one segment, and none is empty."""
    turn_N, version_N = block.of_tokens("turns"), block.of_tokens("versions")
    tokens = int(block.offsets_S1[-1])
    starts = [block.start_S, _position_starts(block)]
    starts += [
        1 + np.flatnonzero(label_N[1:] != label_N[:-1]) for label_N in (turn_N, version_N) if label_N is not None
    ]
    start_U = np.unique(np.concatenate(starts))
    start_U = start_U[start_U < tokens]
    sequence_U = np.searchsorted(block.start_S, start_U, side="right") - 1
    sum_UBF, max_UB = binned_sums(block.logp_mu_N, block.logp_pi_N, np.append(start_U, tokens), _LOGPROB_EDGES)
    position_U = start_U - block.start_S[sequence_U] if block.all_count else block.position_N[start_U]
    return Segments(
        block=block,
        sequence_U=sequence_U,
        position_bin_U=np.searchsorted(POSITION_EDGES, position_U, side="right") - 1,
        turn_U=None if turn_N is None else turn_N[start_U],
        version_U=None if version_N is None else version_N[start_U],
        sum_UBF=sum_UBF,
        max_UB=max_UB,
    )


def _position_starts(block: LogBlock) -> Array:
    """Where in [N] the bins of position begin; those of several bins without a token that counts are the same."""
    first_S = np.cumsum(block.recorded_S) - block.recorded_S
    place_SE = first_S[:, None] + POSITION_EDGES
    place_E = place_SE[block.recorded_S[:, None] > POSITION_EDGES]
    if block.all_count:
        return place_E
    counted_R = np.cumsum(block.counts_R) - block.counts_R
    start_E: Array = counted_R[place_E]
    return start_E
