"""M2PO (2510.01161): of each batch, mask the tokens with the largest d^2 until its mean is at most a threshold.

The one rule that looks at a whole batch, here a step. A token with d^2 up to the threshold is never masked, so only
the others are kept apart, by bins of |d| a sixteenth of an octave wide: the cut falls into one of them, of which a
share is masked as if all its tokens had the same d^2.

Shapes: S sequences of a block, F tokens beyond the smallest bin, L batches, B bins, V values.
"""

from __future__ import annotations

import math

import numpy as np

from ..accumulators import Clusters, grown
from ..correction_results import Correction
from ..sampled import k3, shortfall
from .block import RatioBlock
from .effect import RuleSums

Array = np.ndarray

M2PO = "m2po"
THRESHOLD = 0.04
"""Of the paper and of AReaL's example."""
_PER_OCTAVE = 16
_BINS = 1 + 10 * _PER_OCTAVE  # the last one has |d| beyond 1024 times the smallest
_VALUES = ("tokens", "log_square", "ratio", "square", "shortfall", "k3")


class SecondMoment:
    """M2PO at one threshold. Raises `ValueError` for one that is not positive."""

    def __init__(self, threshold: float = THRESHOLD) -> None:
        if not 0 < threshold < math.inf:
            raise ValueError(f"a mean of d² is positive, not {threshold}")
        self._threshold, self._smallest = threshold, math.sqrt(threshold)
        self.binned_at = ("icepop", {"low": math.exp(-self._smallest), "high": math.exp(self._smallest)})
        """A rule at whose thresholds blocks must be binned."""
        self._low, self._high = (float(np.log(bound)) for bound in self.binned_at[1].values())
        self._batches = Clusters()
        self._table_LBV = np.zeros((0, 1 + _BINS, len(_VALUES)))  # bin 0 has what is never masked
        self._sequences_LB = np.zeros((0, 1 + _BINS), dtype=np.int64)
        """Sequences by the bin of their smallest |d|: they are kept while that token is."""

    def add(self, block: RatioBlock, batch_S: Array) -> None:
        """`batch_S` is the batch that each sequence of the block was in."""
        row_S = self._batches.rows(batch_S)
        self._grow(int(row_S.max()) + 1)
        log_ratio_F, sequence_F = block.far_tokens(self._low, self._high)
        size_F = np.abs(log_ratio_F)
        bin_F, row_F = self._bins(size_F), row_S[sequence_F]
        bins = block.bins("ratio", [self._low], [self._high])
        near_B = bins.within(self._low, self._high)
        with np.errstate(over="ignore"):
            ratio_F = np.exp(log_ratio_F)
            far = (np.ones(len(size_F)), size_F**2, ratio_F, ratio_F**2, shortfall(log_ratio_F), k3(log_ratio_F))
        for v, (name, far_F) in enumerate(zip(_VALUES, far, strict=True)):
            np.add.at(self._table_LBV[:, 0, v], row_S, bins.sum_S(name, near_B))
            np.add.at(self._table_LBV[:, :, v], (row_F, bin_F), far_F)
        no_near_S = np.flatnonzero(bins.tokens_S(near_B) == 0)
        smallest_S = np.zeros(len(row_S))
        np.minimum.at(found := np.full(len(row_S), np.inf), sequence_F, size_F)
        smallest_S[no_near_S] = found[no_near_S]
        np.add.at(self._sequences_LB, (row_S, np.where(smallest_S > 0, self._bins(smallest_S), 0)), 1)

    def merge(self, other: SecondMoment) -> None:
        batches = len(other._batches)
        if not batches:
            return
        row_L = self._batches.rows(other._batches.labels)
        self._grow(int(row_L.max()) + 1)
        self._table_LBV[row_L] += other._table_LBV[:batches]
        self._sequences_LB[row_L] += other._sequences_LB[:batches]

    def correction(self) -> Correction | None:
        """Over all batches; None without any."""
        if not len(self._batches):
            return None
        total = RuleSums("token")
        for row in range(len(self._batches)):
            total.merge(self._masked(self._table_LBV[row], self._sequences_LB[row]))
        remark = "by step, as the batch; w = ρ while kept; the cut is known to a sixteenth of an octave of |d|"
        return total.correction(M2PO, {"threshold": self._threshold}, remark)

    def _masked(self, table_BV: Array, sequences_B: Array) -> RuleSums:
        """Of one batch: bins from the smallest |d| up are kept while the mean of d^2 allows."""
        count_B, square_d_B = table_BV[:, 0], table_BV[:, 1]
        share_B = np.zeros(len(count_B))
        tokens, square_d = 0.0, 0.0
        for b, (count, square) in enumerate(zip(count_B.tolist(), square_d_B.tolist(), strict=True)):
            if not count:
                share_B[b] = 1.0
                continue
            if square_d + square <= self._threshold * (tokens + count):
                share_B[b] = 1.0
                tokens, square_d = tokens + count, square_d + square
                continue
            excess = square / count - self._threshold
            share_B[b] = max(0.0, (self._threshold * tokens - square_d) / (excess * count))
            break
        kept_BV = np.where(share_B[:, None] > 0, table_BV, 0.0) * share_B[:, None]
        kept_V = kept_BV.sum(axis=0)
        whole_V = table_BV.sum(axis=0)
        removed = float((np.where(share_B < 1, table_BV[:, 2], 0.0) * (1 - share_B)).sum())
        with np.errstate(divide="ignore"):
            log_weight, log_square, log_ratio = np.log([kept_V[2], kept_V[3], whole_V[2]]).tolist()
        kept = dict(zip(_VALUES, kept_V.tolist(), strict=True))
        return RuleSums(
            unit="token",
            tokens=int(whole_V[0]),
            sequences=int(sequences_B.sum()),
            units=int(whole_V[0]),
            kept_tokens=round(kept["tokens"]),
            kept_sequences=round(float(sequences_B @ share_B)),
            removed=removed,
            log_weight=log_weight,
            log_square=log_square,
            log_ratio=log_ratio,
            retained={"ratio": kept["ratio"], "tv_estimate": kept["shortfall"], "kl_estimate": kept["k3"]}
            | {"tv": None, "kl": None},
        )

    def _grow(self, rows: int) -> None:
        self._table_LBV = grown(self._table_LBV, rows, 0.0)
        self._sequences_LB = grown(self._sequences_LB, rows, 0)

    def _bins(self, size_F: Array) -> Array:
        """From 1, by |d| above the smallest."""
        octaves_F = np.log2(np.maximum(size_F, self._smallest) / self._smallest)
        return 1 + np.minimum(octaves_F * _PER_OCTAVE, _BINS - 1).astype(np.int64)
