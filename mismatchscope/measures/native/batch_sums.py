"""What trainers' metrics of one batch are functions of: sums and extremes over its tokens and responses.

Legend: N tokens that the trainer's mask keeps, S responses, S1 = S + 1 boundaries, B batches.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from .groups import BITS, of_responses

Array = np.ndarray


@dataclass(eq=False)
class BatchSums:
    """Of one batch. `total` has sums, `largest` and `smallest` extremes, by the names of groups.py."""

    total: dict[str, float] = field(default_factory=dict)
    largest: dict[str, float] = field(default_factory=dict)
    smallest: dict[str, float] = field(default_factory=dict)

    def merge(self, other: BatchSums) -> None:
        """Take in other responses of the same batch."""
        for mine, theirs, join in (
            (self.total, other.total, float.__add__),
            (self.largest, other.largest, max),
            (self.smallest, other.smallest, min),
        ):
            for name, value in theirs.items():
                mine[name] = join(mine[name], value) if name in mine else value

    def mean(self, name: str) -> float:
        """Over tokens."""
        return self.total[name] / self.total["tokens"]

    def response_mean(self, name: str) -> float:
        """Over responses."""
        return self.total[name] / self.total["responses"]


def sums_by_batch(
    logp_mu_N: Array,
    logp_pi_N: Array,
    offsets_S1: Array,
    batch_S: Array,
    metrics: tuple[Definition, ...],
    *,
    counts_N: Array | None = None,
) -> dict[int, BatchSums]:
    """What these metrics need of each batch of these responses; `batch_S` is the number of the batch of each, [S].

    `counts_N` says which tokens count, where others lie between them, as padding does: arrays [B, T] come as
    `ravel()` makes them, with their mask, and boundaries at multiples of T. Log-probs that count are natural and
    legal: see `sampled.sampled_estimators`. No response is empty.

    Raises:
        ValueError: shapes differ, or the boundaries are not rising integers within the tokens.
    """
    read = _read_by(metrics)
    with np.errstate(over="ignore", invalid="ignore"):  # a leak makes some of these infinite, or unknown
        responses = of_responses(logp_mu_N, logp_pi_N, offsets_S1, counts_N, read.bits)
        order_S = np.argsort(batch_S, kind="stable")
        batch_B, first_B = np.unique(batch_S[order_S], return_index=True)

        def pooled(join: np.ufunc, names: dict[str, str]) -> list[dict[str, float]]:
            if not names:
                return [{} for _ in batch_B]
            value_XS = np.array([responses[name] for name in names.values()], np.float64)
            joined_BX = join.reduceat(value_XS.take(order_S, axis=1), first_B, axis=1).T
            return [dict(zip(names, joined_X, strict=True)) for joined_X in joined_BX.tolist()]

        kinds = (pooled(np.add, read.total), pooled(np.maximum, read.largest), pooled(np.minimum, read.smallest))
    return dict(zip(batch_B.tolist(), map(BatchSums, *kinds), strict=True))


class _Read(NamedTuple):
    """What metrics read of `BatchSums`, each by its name among a response's values; the bits of their groups."""

    total: dict[str, str]
    largest: dict[str, str]
    smallest: dict[str, str]
    bits: int


class _Noted(dict[str, float]):
    """Has every name, and notes those that are read. All are 2: no formula stops at a single token or response."""

    def __missing__(self, name: str) -> float:
        return self.setdefault(name, 2.0)


@functools.lru_cache
def _read_by(metrics: tuple[Definition, ...]) -> _Read:
    """A metric's formula is the one place that says what it needs: so it is asked."""
    noted = BatchSums(_Noted(), _Noted(), _Noted())
    for metric in metrics:
        metric.value(noted)
    total = {name: name for name in noted.total}
    largest = {name: _extreme("largest", name) for name in noted.largest}
    smallest = {name: _extreme("smallest", name) for name in noted.smallest}
    bits = [BITS[name] for names in (total, largest, smallest) for name in names.values()]
    return _Read(total, largest, smallest, functools.reduce(int.__or__, bits, 0))


def _extreme(kind: str, name: str) -> str:
    """Over the extremes that responses have of their tokens; where they have none, over the responses."""
    return of_tokens if (of_tokens := f"{kind}_{name}") in BITS else name


@dataclass(frozen=True, eq=False)
class Definition:
    """A metric as a trainer computes it.

    `definition` says how, averages included, `estimates` which quantity that is, if any. `variant` tells settings
    of a trainer apart that log under one name. `over_ranks` says that the trainer averages what each rank has.
    """

    name: str
    definition: str
    estimates: str
    value: Callable[[BatchSums], float]
    variant: str = ""
    over_ranks: bool = False


def spread(sums: BatchSums, name: str, square: str) -> float:
    """Standard deviation over tokens, n − 1 in the denominator, of a quantity whose sum and sum of squares are
    known; NaN of one token alone."""
    n, mean = sums.total["tokens"], sums.mean(name)
    return float(np.sqrt(max(sums.mean(square) - mean * mean, 0.0) * n / (n - 1))) if n > 1 else float("nan")
