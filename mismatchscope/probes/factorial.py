"""Factorial designs in two levels: all combinations of up to five changes, else a fraction of them.

A fraction has all combinations of its first changes; each of the others is made wherever an odd number of some
three or more of those are (the product of their signs; Box & Hunter 1961, "The 2^(k-p) Fractional Factorial
Designs").
Words of the defining relation then have an even number of letters, four or more: resolution IV at least, so that no
change is confounded with another one, or with what two do together. The combinations with no change and with all of
them are always there.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

_FULL = 5
"""Changes, all of whose combinations are run."""

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True)
class Factorial(Generic[T]):
    """`masks` has of each change the first changes whose signs' product is its own, as bits."""

    changes: Sequence[T]
    masks: Sequence[int]
    first: int

    @classmethod
    def of(cls, changes: Sequence[T]) -> Factorial[T]:
        if len(changes) <= _FULL:
            return cls(changes, [1 << number for number in range(len(changes))], len(changes))
        first = _FULL
        while 2 ** (first - 1) < len(changes):
            first += 1
        # The longest product alone gives the highest resolution; then the shortest ones, which are easier to read.
        products = sorted(
            (mask for mask in range(1 << first) if mask.bit_count() % 2 and mask.bit_count() > 1),
            key=lambda mask: (mask.bit_count() < first, mask.bit_count(), _bits(mask)),
        )
        masks = [1 << number for number in range(first)] + products[: len(changes) - first]
        return cls(changes, masks, first)

    @property
    def is_full(self) -> bool:
        return len(self.changes) == self.first

    @property
    def resolution(self) -> int | None:
        """Letters of the shortest word of the defining relation; None where all combinations are run."""
        if self.is_full:
            return None
        added = [mask.bit_count() for mask in self.masks[self.first :]]
        return added[0] + 1 if len(added) == 1 else 4

    @property
    def generators(self) -> Mapping[T, list[T]]:
        """Of each change that follows from others, those."""
        return {
            change: [self.changes[number] for number in _bits(mask)]
            for change, mask in list(zip(self.changes, self.masks, strict=True))[self.first :]
        }

    def combinations(self) -> list[tuple[T, ...]]:
        """The changes that are made in each, from none to all of them."""
        made = (
            tuple(
                change
                for change, mask in zip(self.changes, self.masks, strict=True)
                if (levels & mask).bit_count() % 2
            )
            for levels in range(1 << self.first)
        )
        order = {change: number for number, change in enumerate(self.changes)}
        return sorted(made, key=lambda each: (len(each), [order[change] for change in each]))

    def taken_away(self, change: T) -> dict[frozenset[T], float]:
        """Weights of the gaps of all combinations, whose sum is what a change takes away on average over them."""
        mask = self.masks[list(self.changes).index(change)]
        return self._product(mask, -2.0)

    def together(self) -> Iterator[tuple[list[tuple[T, T]], dict[frozenset[T], float]]]:
        """Of every two changes, weights whose sum is what both take away beyond what each does alone, averaged over
        the settings of the rest; for pairs that are confounded, the sum of theirs."""
        pairs: dict[int, list[tuple[T, T]]] = defaultdict(list)
        for (one, first), (other, second) in itertools.combinations(zip(self.changes, self.masks, strict=True), 2):
            pairs[first ^ second].append((one, other))
        for mask, confounded in pairs.items():
            yield confounded, self._product(mask, -4.0)

    def _product(self, mask: int, scale: float) -> dict[frozenset[T], float]:
        """The scaled mean of the gaps, each with the sign of a product of changes: +1 where all are made."""
        combinations = list(map(frozenset, self.combinations()))
        made_by = dict(zip(self.changes[: self.first], range(self.first), strict=True))
        weight = scale / len(combinations)
        found = {}
        for combination in combinations:
            levels = sum(1 << made_by[change] for change in combination if change in made_by)
            missing = (mask & ~levels).bit_count()
            found[combination] = -weight if missing % 2 else weight
        return found


def _bits(mask: int) -> list[int]:
    return [number for number in range(mask.bit_length()) if mask >> number & 1]
