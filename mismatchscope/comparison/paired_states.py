"""Differences of two pairs of policies state by state, so that what both have in common cancels.

Shapes: N states of one side, B states that both sides measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..alignment.alignment import Alignment
from ..measures.accumulators import Clusters, ClusterSums
from ..measures.results import Interval
from .pair import Pair
from .sampled_logprobs import place_of
from .states import States, measured

_FIGURES = ("tv", "kl", "abs_logprob_diff")
_SAMPLED = ("shortfall", "k3")


@dataclass(frozen=True)
class PairedDifferences:
    """Means of new less old over the states that both pairs measured, the prompt as the unit.

    A figure is None where no state has it on both sides; a state where either is infinite is left out.
    """

    tv: Interval | None
    kl: Interval | None
    abs_logprob_diff: Interval | None

    @classmethod
    def of(cls, new: Pair, old: Pair) -> PairedDifferences:
        """Reads both pairs once more, side by side."""
        clusters = Clusters()
        sums = {name: ClusterSums() for name in _FIGURES}
        for a, b in _shared(figures_by_state(new), figures_by_state(old)):
            row_B = clusters.rows(a["prompt"])
            for name in _FIGURES:
                known_B = np.isfinite(a[name]) & np.isfinite(b[name])
                difference_B = a[name][known_B] - b[name][known_B]
                sums[name].add(
                    row_B[known_B], difference_B, np.ones(len(difference_B), dtype=np.int64), difference_B
                )
        confidence = new.context.confidence
        return cls(
            **{name: sums[name].interval(confidence=confidence) if sums[name].n else None for name in _FIGURES}
        )


def figures_by_state(pair: Pair) -> Iterator[dict[str, np.ndarray]]:
    """Block by block: the place of each state as one rising number, its prompt, its figures (NaN: not known)."""
    context = pair.context
    alignment = Alignment(pair.mu, pair.pi, mask=context.mask, prompts=context.prompts)
    for states in measured(
        alignment, context.policy, ids_of_behavior=context.ids_of_behavior, drawn_by=context.drawn_by
    ):
        yield {
            "place": place_of(states.sequence_id_N, states.position_N),
            "prompt": states.cluster_N,
            "abs_logprob_diff": states.sampled.abs_logprob_diff,
        } | {"tv": _figure(pair, states, "tv"), "kl": _figure(pair, states, "kl")}


def _figure(pair: Pair, states: States, name: Literal["tv", "kl"]) -> np.ndarray:
    """What `PairStatistics.mean_of` averages: exact, or unbiased for the mean."""
    unknown_N = np.full(len(states.position_N), np.nan)
    values = pair.statistics.mean_of(name)
    if values != name and not pair.context.on_policy:
        return unknown_N
    return getattr(states.sampled, values) if values in _SAMPLED else states.columns.get(values, unknown_N)


def _shared(
    new: Iterator[dict[str, np.ndarray]], old: Iterator[dict[str, np.ndarray]]
) -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """The states that both sides have, in step; either may lack some."""
    a, b = next(new, None), next(old, None)
    while a is not None and b is not None:
        _, at_a, at_b = np.intersect1d(a["place"], b["place"], assume_unique=True, return_indices=True)
        if len(at_a):
            yield _rows(a, at_a), _rows(b, at_b)
        # What lies before the end of the shorter one has met all that it can meet.
        end = min(a["place"][-1], b["place"][-1])
        a = _after(a, end) or next(new, None)
        b = _after(b, end) or next(old, None)


def _after(columns: dict[str, np.ndarray], place: int) -> dict[str, np.ndarray] | None:
    start = int(np.searchsorted(columns["place"], place, side="right"))
    return _rows(columns, slice(start, None)) if start < len(columns["place"]) else None


def _rows(columns: dict[str, np.ndarray], at: slice | np.ndarray) -> dict[str, np.ndarray]:
    return {name: value_N[at] for name, value_N in columns.items()}
