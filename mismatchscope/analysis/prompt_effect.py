"""Are the outliers always the same prompts?

Shapes: S responses, E rows of a table, P prompts.
"""

from __future__ import annotations

import numpy as np

from ..measures.binned_sums import TOKENS, TV
from ..measures.intraclass import intraclass
from ..measures.label_sums import LabelSums, cluster_hash
from ..measures.log_results import PromptEffect
from .block import UNKNOWN
from .segments import Segments

Array = np.ndarray

MAX_ROWS = 2**18


class PromptEffectSums:
    """Number, sum and sum of squares of responses' mean TV, by step and prompt.

    Beyond `max_rows` rows only prompts are kept whose hash is below a limit, which halves as often as is needed: a
    random share of the prompts, the same whatever order they come in.
    """

    def __init__(self, max_rows: int = MAX_ROWS) -> None:
        self._table = LabelSums(3, max_rows=2**62)
        self._max_rows, self._halvings = max_rows, 0
        self._seen = 0

    def add(self, segments: Segments) -> None:
        block = segments.block
        mean_S = segments.sum_SF[:, TV] / segments.sum_SF[:, TOKENS]
        step_S = block.by_row.get("step", np.full(len(mean_S), UNKNOWN))
        self._take(step_S, block.cluster_S, np.column_stack([np.ones(len(mean_S)), mean_S, mean_S**2]))

    def merge(self, other: PromptEffectSums) -> None:
        self._halvings = max(self._halvings, other._halvings)
        table = other._table
        self._take(table.label_E, table.cluster_E, table.sum_EF)

    def _take(self, step_U: Array, cluster_U: Array, value_UF: Array) -> None:
        kept_U = self._kept(cluster_U)
        self._table.add(step_U[kept_U], cluster_U[kept_U], value_UF[kept_U])
        self._seen += int(kept_U.sum())
        if self._seen > self._max_rows:
            self._thin()

    def _thin(self) -> None:
        self._seen = len(self._table.label_E)
        while self._seen > self._max_rows:
            self._halvings += 1
            table, kept_E = self._table, self._kept(self._table.cluster_E)
            self._table = LabelSums(3, max_rows=2**62)
            self._table.add(table.label_E[kept_E], table.cluster_E[kept_E], table.sum_EF[kept_E])
            self._seen = int(kept_E.sum())

    def _kept(self, cluster_U: Array) -> Array:
        return cluster_hash(cluster_U) >> (63 - self._halvings) == 0 if self._halvings else cluster_U == cluster_U

    def result(self, *, confidence: float = 0.95) -> PromptEffect | None:
        """Each response less the mean of its step, so that a drift does not make prompts alike that were sampled
        together; None where no prompt has two responses."""
        self._thin()
        step_T, start_T1 = self._table.labels()
        if not len(step_T):
            return None
        count_E, sum_E, square_E = self._table.sum_EF.T
        total_TF = self._table.by_label()
        mean_E = np.repeat(total_TF[:, 1] / total_TF[:, 0], np.diff(start_T1))
        # A step's mean lies in the space of the prompts as far as its prompts are in no other step.
        of_step_E = np.repeat(total_TF[:, 0], np.diff(start_T1))
        prompt_P, index_E = np.unique(self._table.cluster_E, return_inverse=True)
        columns = (count_E, sum_E - mean_E * count_E, square_E - 2 * mean_E * sum_E + mean_E**2 * count_E)
        of_prompt_E = np.bincount(index_E, count_E)[index_E]
        between = float(np.sum(count_E**2 / (of_step_E * of_prompt_E)))
        fitted = (between, len(step_T) - between)
        found = intraclass(
            *(np.bincount(index_E, column_E) for column_E in columns), fitted=fitted, confidence=confidence
        )
        if found.value is None:
            return None
        return PromptEffect(intraclass=found, prompts=len(prompt_P), sequences=int(count_E.sum()))
