"""Which workers differ from the others, at a stated rate of error over all workers together.

A worker is held against the others at like steps, environments, lags, positions and response lengths, per unit of
Gini impurity: what it is given to do is not part of it.

Shapes: L labels, E rows of the cells, K those of labels that are compared, P pairs of label and prompt, V levels
of a factor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..measures.log_results import GroupKind
from ..measures.outliers import means_apart
from ..measures.rate_model import expected_sums
from .block import UNKNOWN
from .cells import CELL_IMPURITY, CELL_TV, CellSums, levels

Array = np.ndarray

TESTED: tuple[GroupKind, ...] = ("worker", "rank")
"""What is tested of the kinds of label."""
FACTORS = ("step", "environment", "lag", "position", "length")
_COMPARABLE, _LEAST_OTHERS = 0.5, 0.1
"""A label is compared where half of what is expected of it is of steps, of environments, and so on, of which the
others have at least a tenth of what they have elsewhere."""


@dataclass(frozen=True)
class Apart:
    """`p_value` is adjusted for the number of labels."""

    differs: bool
    p_value: float


def labels_apart(cells: CellSums, kind: GroupKind, *, confidence: float = 0.95) -> dict[int, Apart]:
    """Of each label whether its mean TV is apart from that of the others at like conditions.

    Those with too few prompts are left out, and those that no others share conditions with; all of them where no
    token has a TV above 0. In at most 1 − `confidence` of the logs whose workers are alike is any of them said to
    differ.
    """
    key_E, sum_EF = cells.rows()
    of_E = (key_E[kind] != UNKNOWN) & (sum_EF[:, CELL_IMPURITY] > 0)
    tv_E, impurity_E = sum_EF[of_E, CELL_TV], sum_EF[of_E, CELL_IMPURITY]
    if not tv_E.any():
        return {}
    factors = [levels(key_E[name][of_E]) for name in FACTORS]
    expected_E = expected_sums(factors, tv_E, impurity_E)
    label_L, label_E = np.unique(key_E[kind][of_E], return_inverse=True)
    prompt_E = levels(key_E["prompt"][of_E])
    prompts = int(prompt_E.max()) + 1
    kept_E = _comparable(label_E, factors, expected_E)[label_E]
    pair_P, index_K = np.unique((label_E * prompts + prompt_E)[kept_E], return_inverse=True)
    tv_P, expected_P = (
        np.bincount(index_K, each_E[kept_E], minlength=len(pair_P)) for each_E in (tv_E, expected_E)
    )
    p_value_L = means_apart(
        pair_P // prompts, pair_P % prompts, tv_P, expected_P, len(label_L), prompts, 1 - confidence
    )
    return {
        int(label): Apart(differs=bool(p < 1 - confidence), p_value=float(p))
        for label, p in zip(label_L, p_value_L, strict=True)
        if not np.isnan(p)
    }


def _comparable(label_E: Array, factors: list[Array], expected_E: Array) -> Array:
    """Which labels share each factor's levels with others [L]."""
    labels = int(label_E.max()) + 1
    share_L = np.bincount(label_E, expected_E) / expected_E.sum()
    comparable_L = np.ones(labels, dtype=bool)
    for level_E in factors:
        values = int(level_E.max()) + 1
        expected_LV = np.bincount(label_E * values + level_E, expected_E, minlength=labels * values)
        expected_LV = expected_LV.reshape(labels, values)
        others_LV = expected_LV.sum(axis=0) - expected_LV
        usual_LV = (1 - share_L)[:, None] * expected_LV.sum(axis=0)
        with_others_L = np.where(others_LV >= _LEAST_OTHERS * usual_LV, expected_LV, 0.0).sum(axis=1)
        comparable_L &= with_others_L >= _COMPARABLE * expected_LV.sum(axis=1)
    return comparable_L
