"""The sums by prompt behind the means of a report, so that a later one of the same prompts can be paired with it.

Shapes: C clusters (prompts) as they were counted, S sequences.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ..measures.accumulators import ClusterSums
from ..measures.results import Interval, Statistic
from ..reports.prompt_sums import FigureSums, PromptSums
from .reduction import PairFigures
from .statistics import PairStatistics

MOST_PROMPTS = 10_000
Sums = tuple[np.ndarray, np.ndarray]
"""Sum and count of a figure, each [C]."""


def prompt_sums_of(figures: PairFigures, statistics: PairStatistics) -> PromptSums | None:
    """Of every mean over tokens or responses that the pair's report has, as far as one number a prompt makes it up.

    The sums behind a mean are found by the mean itself: which estimator a figure is depends on the evidence, and a
    figure is never paired by the sums of another estimator. A prompt goes by its label, a hash of its tokens. None
    for more than `MOST_PROMPTS`, whose means are narrow without pairing.
    """
    labels = statistics.prompts.tolist()
    if len(labels) > MOST_PROMPTS:
        return None
    kept = {
        path: FigureSums(sums=sum_C.tolist(), counts=count_C.tolist())
        for path, (sum_C, count_C) in _means(figures, statistics, labels)
    }
    return PromptSums(prompts=[f"{label % 2**64:016x}" for label in labels], figures=kept)


def _means(figures: PairFigures, statistics: PairStatistics, labels: list[int]) -> Iterator[tuple[str, Sums]]:
    """(path, sums) of each mean whose sums are kept."""
    tokens, sequences = _token_sums(statistics), _sequence_sums(statistics, labels)
    yield "token.ratio_outside_band", _by_prompt(statistics.outside_band, len(labels))
    for section, record, kept in (
        ("token", figures.token, tokens),
        ("sequence", figures.sequence, sequences),
        ("alpha1", figures.alpha, tokens),
    ):
        for name, value in vars(record).items():
            sums = _behind(value, kept)
            if sums is not None:
                yield f"{section}.{name}", sums


def _behind(figure: object, kept: list[Sums]) -> Sums | None:
    """The sums that make up the mean of this figure, if they are kept."""
    if isinstance(figure, Statistic):
        mean, n = figure.mean, figure.n
    elif isinstance(figure, Interval) and figure.method != "lower-ends-only":
        mean, n = figure.value, figure.n
    else:
        return None
    if mean is None or not math.isfinite(mean):
        return None
    for sum_C, count_C in kept:
        if int(count_C.sum()) == n and math.isclose(sum_C.sum() / n, mean, rel_tol=1e-12, abs_tol=0.0):
            return sum_C, count_C
    return None


def _token_sums(statistics: PairStatistics) -> list[Sums]:
    kept = [*statistics.sums.values(), statistics.tv_lower.sums, statistics.tv_upper.sums]
    return [_by_prompt(sums, len(statistics.prompts)) for sums in kept if sums.n]


def _by_prompt(sums: ClusterSums, clusters: int) -> Sums:
    sum_C, count_C = sums.by_cluster(clusters)
    return sum_C[:clusters], count_C[:clusters]


def _sequence_sums(statistics: PairStatistics, labels: list[int]) -> list[Sums]:
    sums = statistics.sequences
    row_of = {label: row for row, label in enumerate(labels)}
    row_S = np.array([row_of[label] for label in sums.prompt_id.tolist()], dtype=np.int64)
    count_C = np.bincount(row_S, minlength=len(labels))
    columns = (sums.shortfall, sums.kl, sums.log_ratio, sums.ratio, sums.geometric_ratio, sums.sum_tv, sums.max_tv)
    return [
        (np.bincount(row_S, value_S, minlength=len(labels)), count_C)
        for value_S in columns
        if np.isfinite(value_S).all()
    ]
