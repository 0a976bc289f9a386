"""Means and extremes as verl takes them."""

from __future__ import annotations

from collections.abc import Callable

from .batch_sums import BatchSums
from .groups import EPSILON

Value = Callable[[BatchSums], float]


def mean(name: str, less: float = 0.0) -> Value:
    return lambda sums: sums.total[name] / (sums.total["tokens"] + EPSILON) - less


def by_response(name: str, less: float = 0.0) -> Value:
    return lambda sums: sums.response_mean(name) - less


def largest(name: str) -> Value:
    return lambda sums: sums.largest[name]


def smallest(name: str) -> Value:
    return lambda sums: sums.smallest[name]
