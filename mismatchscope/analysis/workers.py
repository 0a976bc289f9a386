"""Which workers differ from the others, at a stated rate of error over all workers together.

Shapes: L labels, C clusters (prompts), E rows of a table.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..measures.binned_sums import TOKENS, TV
from ..measures.label_sums import LabelSums
from ..measures.outliers import means_apart

Array = np.ndarray


@dataclass(frozen=True)
class Apart:
    """`p_value` is adjusted for the number of labels."""

    differs: bool
    p_value: float


def labels_apart(table: LabelSums, *, confidence: float = 0.95) -> dict[int, Apart]:
    """Of each label whether its mean TV is apart from that of the others; those with too few prompts are left out.

    In at most 1 − `confidence` of the logs whose workers are alike is any of them said to differ. What a worker is
    given to do is part of it: one that serves the harder prompts alone differs too.
    """
    label_L, start_L1 = table.labels()
    cluster_C, row_E = np.unique(table.cluster_E, return_inverse=True)
    label_E = np.repeat(np.arange(len(label_L)), np.diff(start_L1))
    p_value_L = means_apart(
        label_E, row_E, table.sum_EF[:, TV], table.sum_EF[:, TOKENS], len(label_L), len(cluster_C), 1 - confidence
    )
    return {
        int(label): Apart(differs=bool(p < 1 - confidence), p_value=float(p))
        for label, p in zip(label_L, p_value_L, strict=True)
        if not np.isnan(p)
    }
