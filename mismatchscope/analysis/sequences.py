"""Responses to look at: those whose tokens are farthest apart, and a random sample beside them.

The worst are those of the largest mean of (1 − ρ)₊ over their tokens, which estimates the mean TV of a response's
states. The random ones have the smallest hash of their number, so every order and split of a log chooses the same.
Only whole responses are chosen: of others log ρ(y) is not known.

Shapes: as in `block`, and [K] of the responses that are chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..measures.log_results import LoggedSequence, LoggedToken
from .block import UNKNOWN, LogBlock

KEPT = 5
"""Of the worst, and of the random ones."""
LONGEST = 800
"""Tokens that are kept of a response, from its first one on."""


@dataclass(frozen=True, eq=False)
class _Candidate:
    order: tuple[float, int]
    """The smallest ones are chosen."""
    sequence: _Response


class SequenceSamples:
    """Keeps `KEPT` responses of each kind, whatever the size of the log."""

    def __init__(self) -> None:
        self._worst: list[_Candidate] = []
        self._random: list[_Candidate] = []

    def add(self, block: LogBlock) -> None:
        """Take in whole responses, none of them twice."""
        sums = block.figures.sums
        mean_tv_S, log_ratio_S = sums.shortfall / block.length_S, sums.log_ratio
        place_S = np.flatnonzero(block.whole_S)
        for kept, chosen, order_S in (
            (self._worst, "worst", -mean_tv_S),
            (self._random, "random", _hash(block.sequence_id_S).astype(np.float64)),
        ):
            limit = kept[-1].order if len(kept) == KEPT else (np.inf, 0)
            # By the number of the response where two are equal, so that the order of a log does not matter.
            first_K = place_S[np.lexsort((block.sequence_id_S[place_S], order_S[place_S]))[:KEPT]]
            for at in first_K.tolist():
                order = float(order_S[at]), int(block.sequence_id_S[at])
                if order < limit:
                    figures = float(log_ratio_S[at]), float(mean_tv_S[at])
                    kept.append(_Candidate(order, _logged(block, at, chosen, *figures)))
            _cut(kept)

    def merge(self, other: SequenceSamples) -> None:
        """Take in what another one has seen of other responses."""
        for kept, theirs in ((self._worst, other._worst), (self._random, other._random)):
            kept += theirs
            _cut(kept)

    def results(self) -> list[LoggedSequence]:
        """The worst ones first, the farthest apart before the others; a response can be of both kinds."""
        return [candidate.sequence.logged() for candidate in [*self._worst, *self._random]]


def _cut(kept: list[_Candidate]) -> None:
    kept.sort(key=lambda candidate: candidate.order)
    del kept[KEPT:]


def _hash(number_S: np.ndarray) -> np.ndarray:
    """SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators"), uint64 [S]."""
    with np.errstate(over="ignore"):
        mixed_S = number_S.astype(np.int64).view(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed_S = (mixed_S ^ (mixed_S >> np.uint64(shift))) * np.uint64(factor)
    return mixed_S ^ (mixed_S >> np.uint64(31))


@dataclass(frozen=True, eq=False)
class _Response:
    """A response as arrays: most that are kept for a while make way for others, and never become tokens."""

    facts: dict[str, Any]
    columns_R: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
    labels_R: tuple[np.ndarray | None, np.ndarray | None]

    def logged(self) -> LoggedSequence:
        token_id_R, mu_R, pi_R, counts_R = (column_R.tolist() for column_R in self.columns_R)
        turn_R, version_R = (_known(label_R, len(counts_R)) for label_R in self.labels_R)
        tokens = zip(token_id_R, mu_R, pi_R, counts_R, turn_R, version_R, strict=True)
        return LoggedSequence(
            **self.facts,
            tokens=tuple(
                LoggedToken(token_id, _number(mu), _number(pi), counts, turn, version)
                for token_id, mu, pi, counts, turn, version in tokens
            ),
        )


def _logged(block: LogBlock, at: int, chosen: str, log_ratio: float, mean_tv: float) -> _Response:
    recorded = int(block.recorded_S[at])
    start = int(block.recorded_S[:at].sum())
    of_R = slice(start, start + min(recorded, LONGEST))
    row = {name: value_S[at] for name, value_S in block.by_row.items()}
    step, reward = int(row.get("step", UNKNOWN)), float(row.get("reward", np.nan))
    by_token = (block.by_token.get(name) for name in ("turns", "versions"))
    turn_R, version_R = (None if value_R is None else value_R[of_R].copy() for value_R in by_token)
    return _Response(
        facts={
            "sequence_id": int(block.sequence_id_S[at]),
            "chosen": "worst" if chosen == "worst" else "random",
            "step": None if step == UNKNOWN else step,
            "worker": row.get("worker") or None,
            "environment": row.get("environment") or None,
            "reward": None if np.isnan(reward) else reward,
            "log_ratio": log_ratio,
            "mean_tv": mean_tv,
            "omitted": max(0, recorded - LONGEST),
        },
        columns_R=(
            block.token_id_R[of_R].copy(),
            block.logp_R["behavior"][of_R].copy(),
            block.logp_R["reference"][of_R].copy(),
            block.counts_R[of_R].copy(),
        ),
        labels_R=(turn_R, version_R),
    )


def _known(label_R: np.ndarray | None, tokens: int) -> list[int | None]:
    """A column of integers by token; None where the log does not say."""
    if label_R is None:
        return [None] * tokens
    return [None if value == UNKNOWN else value for value in label_R.tolist()]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value
