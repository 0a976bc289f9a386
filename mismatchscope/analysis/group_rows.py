"""Tables by label out of a log's sums: the rows of a report's groups, each figure with its interval.

Shapes: C clusters (prompts) of a label, F columns of its sums.
"""

from __future__ import annotations

import math

import numpy as np

from ..measures.binned_sums import ABS, KL, RATIO, TOKENS, TV
from ..measures.intervals import ANY, NONNEGATIVE, UNIT, ratio_interval
from ..measures.label_sums import LabelSums
from ..measures.log_results import GroupKind, GroupRow, Groups
from ..measures.results import Interval
from .groups import KINDS, OF_RESPONSES, RESPONSES, TEXTS, WHOLE, WHOLE_LOG_RATIO, GroupSums
from .segments import POSITION_EDGES, PROBABILITY_EDGES
from .workers import TESTED, Apart, labels_apart

Array = np.ndarray

MAX_ROWS = 64


def groups_of(sums: GroupSums, *, confidence: float = 0.95) -> tuple[Groups, ...]:
    """The tables of a log, one a kind of label that it has two of."""
    found = []
    for kind in KINDS:
        table = sums.tables[kind]
        if len(table.labels()[0]) > 1:
            apart = labels_apart(sums.cells, kind, confidence=confidence) if kind in TESTED else {}
            found.append(_table(kind, table, sums.texts, apart, confidence))
    return tuple(found)


def _table(
    kind: GroupKind, table: LabelSums, texts: dict[int, str], apart: dict[int, Apart], confidence: float
) -> Groups:
    label_L, start_L1 = table.labels()
    tokens_L = table.by_label()[:, TOKENS]
    shown = np.sort(np.argsort(-tokens_L, kind="stable")[:MAX_ROWS]).tolist()
    rows = [
        _row(
            table,
            slice(start_L1[index], start_L1[index + 1]),
            label_name(kind, int(label_L[index]), texts),
            apart.get(int(label_L[index])),
            whole=kind in OF_RESPONSES,
            confidence=confidence,
        )
        for index in shown
    ]
    if kind in TEXTS:
        rows.sort(key=lambda row: row.label)
    return Groups(by=kind, rows=tuple(rows), omitted=len(label_L) - len(rows))


def _row(
    table: LabelSums, of: slice, label: str, apart: Apart | None, *, whole: bool, confidence: float
) -> GroupRow:
    sum_CF = table.sum_EF[of]
    count_C = sum_CF[:, TOKENS]

    def mean(column: int, bounds: tuple[float, float] = ANY, count_C: Array = count_C) -> Interval:
        return label_mean(sum_CF[:, column], count_C, confidence=confidence, bounds=bounds)

    any_whole = whole and bool(sum_CF[:, WHOLE].any())
    return GroupRow(
        label=label,
        prompts=len(sum_CF),
        sequences=int(sum_CF[:, RESPONSES].sum()),
        tokens=int(count_C.sum()),
        tv=mean(TV, UNIT),
        kl=mean(KL, NONNEGATIVE),
        abs_logprob_diff=mean(ABS, NONNEGATIVE),
        ratio=mean(RATIO, NONNEGATIVE),
        observed_max=float(table.max_E[of].max()),
        log_ratio=mean(WHOLE_LOG_RATIO, count_C=sum_CF[:, WHOLE]) if any_whole else None,
        ess_fraction=ess_fraction(table.log_EG[of], float(sum_CF[:, WHOLE].sum())) if any_whole else None,
        differs=apart.differs if apart else None,
        p_value=apart.p_value if apart else None,
    )


def label_mean(
    sum_C: Array, count_C: Array, *, confidence: float = 0.95, bounds: tuple[float, float] = ANY
) -> Interval:
    """Pooled mean of a label's tokens, or responses, with the prompt as the unit; infinite as `sums_interval`
    says."""
    has_C = count_C > 0
    sum_C, count_C = sum_C[has_C], count_C[has_C]
    n, clusters = int(count_C.sum()), len(sum_C)
    if not clusters:
        return Interval(None, None, None, confidence, 0, 0, "no-values")
    if not np.isfinite(sum_C).all():
        total = float(sum_C.sum())
        value = None if math.isnan(total) else total
        return Interval(value, value, value, confidence, n, clusters, "infinite")
    if clusters > 1 and not sum_C.any():
        return Interval(0.0, 0.0, 0.0, confidence, n, clusters, "all-zero")
    return ratio_interval(sum_C, count_C, confidence=confidence, bounds=bounds)


def ess_fraction(log_CG: Array, whole: float) -> float | None:
    """(Σ w)² / (S Σ w²) from log Σ w and log Σ w² of each prompt; None where every weight is 0."""
    log_sum, log_square = np.logaddexp.reduce(log_CG, axis=0)
    if not np.isfinite(log_sum):
        return None
    return float(min(1.0, np.exp(2 * log_sum - log_square) / whole))


def label_name(kind: GroupKind, label: int, texts: dict[int, str]) -> str:
    """What a label is called in a table."""
    if kind in TEXTS:
        return texts[label]
    if kind == "length":
        return _range(2**label, 2 ** (label + 1) - 1)
    if kind == "position":
        last = label + 1 == len(POSITION_EDGES)
        first = int(POSITION_EDGES[label])
        return f"{first} and later" if last else _range(first, int(POSITION_EDGES[label + 1]) - 1)
    if kind == "logprob":
        edges = [f"{edge:g}" for edge in PROBABILITY_EDGES]
        if label == 0:
            return f"μ < {edges[0]}"
        return f"μ ≥ {edges[-1]}" if label == len(edges) else f"μ {edges[label - 1]} – {edges[label]}"
    return str(label)


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first} – {last}"
