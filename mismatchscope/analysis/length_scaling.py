"""How the spread of log ρ(y) grows with a response's length: sums for `measures.length_scaling`.

Shapes: S responses.
"""

from __future__ import annotations

import numpy as np

from ..measures.binned_sums import LOG_RATIO, TOKENS
from ..measures.label_sums import LabelSums
from ..measures.length_scaling import length_scaling
from ..measures.log_results import LengthScaling
from .segments import POSITION_EDGES, Segments

_BINS_PER_DOUBLING = 4
_COLUMNS = (
    *("responses", "log_ratio", "square", "product", "length", "length_square", "log_length"),
    *("early", "early_late"),
)


class LengthScalingSums:
    """Of whole responses whose log ρ(y) is finite, by bin of length and prompt."""

    def __init__(self) -> None:
        self._table = LabelSums(len(_COLUMNS))

    def add(self, segments: Segments) -> None:
        x_S, length_S = segments.sum_SF[:, LOG_RATIO], segments.sum_SF[:, TOKENS]
        kept_S = segments.block.whole_S & np.isfinite(x_S)
        x_S, length_S = x_S[kept_S], length_S[kept_S]
        log_length_S = np.log(length_S)
        bin_S = np.floor(np.log2(length_S) * _BINS_PER_DOUBLING + 1e-9).astype(np.int64)
        early_S = _early_sums(segments)[kept_S]
        columns = [np.ones(len(x_S)), x_S, x_S**2, x_S * length_S, length_S, length_S**2, log_length_S]
        columns += [early_S, early_S * (x_S - early_S)]
        self._table.add(bin_S, segments.block.cluster_S[kept_S], np.column_stack(columns))

    def merge(self, other: LengthScalingSums) -> None:
        self._table.merge(other._table)

    def result(self, *, confidence: float = 0.95) -> LengthScaling | None:
        columns = dict(zip(_COLUMNS, self._table.sum_EF.T, strict=True))
        return length_scaling(self._table.label_E, self._table.cluster_E, columns, confidence=confidence)


def _early_sums(segments: Segments) -> np.ndarray:
    """Σ d over each response's positions below the last edge in its first half."""
    last_S = np.searchsorted(POSITION_EDGES, segments.block.recorded_S / 2, side="right") - 1
    early_U = segments.position_bin_U < last_S[segments.sequence_U]
    sum_U = np.where(early_U, segments.sum_UF[:, LOG_RATIO], 0.0)
    total: np.ndarray = np.add.reduceat(sum_U, segments.first_S)
    return total
