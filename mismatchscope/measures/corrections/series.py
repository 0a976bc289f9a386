"""What every setting did by a label of responses, such as their step, and by cluster.

Shapes: S responses of a block, L labels, C clusters, K settings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..accumulators import Clusters, ClusterSums, grown
from ..correction_results import CorrectionSeries
from ..intervals import ALIKE, NONNEGATIVE, UNIT, unseen_share
from ..results import Interval
from .effect import Effect

Array = np.ndarray
MAX_LABELS = 10_000

_ADDED_UP = ("kept_tokens", "kept_sequences", "removed")
_LOGARITHMS = ("log_weight", "log_square")


class LabelSums:
    """Sums by label and setting, [L, K]; a setting that lacked something once is of no use from then on."""

    def __init__(self, settings: int) -> None:
        self._labels = Clusters()
        self._size = np.zeros((0, 2), dtype=np.int64)  # tokens, responses
        self._sums = {name: np.zeros((0, settings)) for name in _ADDED_UP}
        self._logs = {name: np.zeros((0, settings)) for name in _LOGARITHMS}

    def add(self, label_S: Array, effects: Sequence[Effect | None]) -> None:
        row_S = self._labels.rows(label_S)
        for row in np.unique(row_S).tolist():
            chosen_S = np.flatnonzero(row_S == row)
            self._grow(row + 1)
            size_known = False
            for k, effect in enumerate(effects):
                if effect is None:
                    continue
                sums = effect.sums(chosen_S)
                if not size_known:
                    self._size[row] += (sums.tokens, sums.sequences)
                    size_known = True
                for name, matrix in self._sums.items():
                    matrix[row, k] += getattr(sums, name)
                for name, matrix in self._logs.items():
                    matrix[row, k] = np.logaddexp(matrix[row, k], getattr(sums, name))

    def merge(self, other: LabelSums) -> None:
        row_L = self._labels.rows(other._labels.labels) if len(other._labels) else np.zeros(0, dtype=np.int64)
        if not len(row_L):
            return
        self._grow(int(row_L.max()) + 1)
        labels = len(row_L)
        self._size[row_L] += other._size[:labels]
        for name, matrix in self._sums.items():
            matrix[row_L] += other._sums[name][:labels]
        for name, matrix in self._logs.items():
            matrix[row_L] = np.logaddexp(matrix[row_L], other._logs[name][:labels])

    def series(
        self, k: int, name: str, parameters: dict[str, float], unit: str, by: str
    ) -> CorrectionSeries | None:
        """Of setting `k`, in the order of the labels; None without any."""
        label_L = self._labels.labels
        if not len(label_L):
            return None
        order_L = np.argsort(label_L)[:MAX_LABELS]
        tokens_L, sequences_L = self._size[order_L].T
        unit_L = tokens_L if unit == "token" else sequences_L
        log_weight_L, log_square_L = (self._logs[each][order_L, k] for each in _LOGARITHMS)
        with np.errstate(over="ignore", invalid="ignore"):
            weight_L = np.exp(log_weight_L - np.log(unit_L))
            ess_L = np.minimum(np.exp(2 * log_weight_L - log_square_L) / unit_L, 1.0)
        return CorrectionSeries(
            name=name,
            parameters=parameters,
            by="lag" if by == "lag" else "step",
            labels=tuple(label_L[order_L].tolist()),
            kept_tokens=tuple((self._sums["kept_tokens"][order_L, k] / tokens_L).tolist()),
            kept_sequences=tuple((self._sums["kept_sequences"][order_L, k] / sequences_L).tolist()),
            clipped_mass=tuple((self._sums["removed"][order_L, k] / unit_L).tolist()),
            mean_weight=tuple(weight_L.tolist()),
            ess_fraction=tuple(None if math.isnan(each) else each for each in ess_L.tolist()),
            omitted=len(label_L) - len(order_L),
        )

    def _grow(self, rows: int) -> None:
        self._size = grown(self._size, rows, 0)
        self._sums = {name: grown(matrix, rows, 0.0) for name, matrix in self._sums.items()}
        self._logs = {name: grown(matrix, rows, -np.inf) for name, matrix in self._logs.items()}


class ClusterWeights:
    """Sums by cluster and setting, for intervals of the mean weight and of the kept share by prompts."""

    def __init__(self, settings: int) -> None:
        self._clusters = Clusters()
        self._weights = [ClusterSums() for _ in range(settings)]
        self._kept = [ClusterSums() for _ in range(settings)]

    def add(self, cluster_S: Array, effects: Sequence[Effect | None]) -> None:
        row_S = self._clusters.rows(cluster_S)
        for effect, weights, kept in zip(effects, self._weights, self._kept, strict=True):
            if effect is None:
                continue
            units_S = effect.length_S if effect.unit == "token" else np.ones_like(effect.length_S)
            with np.errstate(over="ignore"):
                weight_S = np.exp(effect.log_weight_S)
            weights.add(row_S, weight_S, units_S, weight_S / units_S)
            kept.add(row_S, effect.kept_S, effect.length_S, effect.kept_S / effect.length_S)

    def merge(self, other: ClusterWeights) -> None:
        row_C = self._clusters.rows(other._clusters.labels)
        for mine, theirs in ((self._weights, other._weights), (self._kept, other._kept)):
            for sums, added in zip(mine, theirs, strict=True):
                sums.merge(added, row_C)

    def intervals(self, k: int, confidence: float) -> tuple[Interval, Interval]:
        """Of the mean weight, and of the kept share of the tokens, of setting `k`.

        Values that are all alike show no spread, which is not to have none: a mean weight has no ends then, and a
        share of none or all has what as large a part of the prompts may do otherwise as so many can fail to show.
        """
        weight = self._weights[k].interval(confidence=confidence, bounds=NONNEGATIVE)
        kept = self._kept[k].interval(confidence=confidence, bounds=UNIT)
        if weight.method in ALIKE:
            weight = replace(weight, low=None, high=None)
        if kept.method in ALIKE:
            kept = _of_none_or_all(kept, confidence)
        return weight, kept


def _of_none_or_all(share: Interval, confidence: float) -> Interval:
    unseen = unseen_share(share.clusters, confidence)
    if share.value == 0:
        return replace(share, high=unseen, method="rule-of-three")
    if share.value == 1:
        return replace(share, low=1 - unseen, method="rule-of-three")
    return replace(share, low=None, high=None)
