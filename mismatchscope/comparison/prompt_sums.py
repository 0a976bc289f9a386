"""The sums by prompt behind the means of a report, so that a later one of the same prompts can be paired with it.

Shapes: C clusters (prompts) as they were counted, S sequences.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping

import numpy as np

from ..measures.accumulators import ClusterSums
from ..measures.results import Interval, Statistic
from ..reports.prompt_sums import FigureSums, PromptSums
from ..traces.reader import Trace
from .pair import Pair
from .reduction import PairFigures
from .statistics import PairStatistics

_SEQUENCE_ROWS = 4096
_HASH_DIGITS = 16

Sums = tuple[np.ndarray, np.ndarray]
"""Sum and count of a figure, each [C]."""


def prompt_sums_of(pair: Pair) -> PromptSums:
    """Of every mean over tokens or responses that the pair's report has, as far as one number a prompt makes it up.

    The sums behind a mean are found by the mean itself: which estimator a figure is depends on the evidence, and a
    figure is never paired by the sums of another estimator.
    """
    return sums_by_prompt(pair.figures, pair.statistics, _keys(pair.mu))


def sums_by_prompt(figures: PairFigures, statistics: PairStatistics, keys: Mapping[int, str]) -> PromptSums:
    """As `prompt_sums_of`, from what a pair was reduced to; `keys` names each prompt."""
    labels = statistics.prompt_ids.tolist()
    prompts = sorted({keys[label] for label in labels})
    row_of = {prompt: row for row, prompt in enumerate(prompts)}
    row_C = np.array([row_of[keys[label]] for label in labels], dtype=np.int64)

    def by_prompt(sums: Sums) -> FigureSums:
        sum_C, count_C = (np.bincount(row_C, column_C, minlength=len(prompts)) for column_C in sums)
        return FigureSums(sums=sum_C.tolist(), counts=count_C.astype(np.int64).tolist())

    kept = {path: by_prompt(sums) for path, sums in _means(figures, statistics, labels)}
    return PromptSums(prompts=prompts, figures=kept)


def _keys(trace: Trace) -> dict[int, str]:
    """By prompt id, a hash of the prompt's token ids."""
    keys: dict[int, str] = {}
    for batch in trace.iter_sequences(["prompt_id", "prompt_token_ids"], _SEQUENCE_ROWS):
        for prompt_id, token_ids in zip(batch["prompt_id"].to_pylist(), batch["prompt_token_ids"], strict=True):
            if prompt_id is not None and prompt_id not in keys:
                ids = np.asarray(token_ids.values if token_ids.is_valid else [], dtype="<i4")
                keys[prompt_id] = hashlib.sha256(ids.tobytes()).hexdigest()[:_HASH_DIGITS]
    return keys


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
    return [_by_prompt(sums, len(statistics.prompt_ids)) for sums in kept if sums.n]


def _by_prompt(sums: ClusterSums, clusters: int) -> Sums:
    sum_C, count_C = sums.by_cluster(clusters)
    return sum_C[:clusters], count_C[:clusters]


def _sequence_sums(statistics: PairStatistics, labels: list[int]) -> list[Sums]:
    sums = statistics.sequences
    row_of = {label: row for row, label in enumerate(labels)}
    row_S = np.array([row_of[label] for label in sums.prompt_id.tolist()], dtype=np.int64)
    count_C = np.bincount(row_S, minlength=len(labels))
    kl_S, *_ = sums.kl
    columns = (sums.shortfall, kl_S, sums.log_ratio, sums.ratio, sums.geometric_ratio, sums.sum_tv, sums.max_tv)
    return [
        (np.bincount(row_S, value_S, minlength=len(labels)), count_C)
        for value_S in columns
        if np.isfinite(value_S).all()
    ]
