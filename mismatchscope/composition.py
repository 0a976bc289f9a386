"""Which sequences an engine computes together: a property of one task, not of the engine that is loaded.

Numbers depend on it, because kernels pick their splits of sums by the shape of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from .errors import ConfigError

Order = Literal["given", "length"]
Padding = Literal["right", "left", "packed"]
PrefixCache = Literal["cold", "warm"]


@dataclass(frozen=True)
class BatchComposition:
    """Which sequences an engine computes together, and how. None leaves the choice to the engine's options.

    `batch_size` sequences make a batch, the last one may be smaller, taken in the `order` of the requests or the
    longest first; a `shuffle_seed` reorders the requests before that. `batches` names the sequences of every batch,
    row by row, in place of all three. `padding` lays out the sequences of a prefill; "packed" is one row in which
    positions restart at every sequence. A batch begins with an empty `prefix_cache`, or with one that is "warm": it
    has the prompts of the batch, which were read just before.

    Raises `ConfigError` for an empty batch and for explicit batches beside a rule that would cut others.
    """

    batch_size: int | None = None
    order: Order | None = None
    shuffle_seed: int | None = None
    padding: Padding | None = None
    batches: tuple[tuple[int, ...], ...] | None = None  # sequence ids
    prefix_cache: PrefixCache | None = None

    def __post_init__(self) -> None:
        if self.batches is not None:
            # They may come as lists, from JSON, or as numpy's integers.
            batches = tuple(tuple(int(sequence_id) for sequence_id in batch) for batch in self.batches)
            object.__setattr__(self, "batches", batches)
        if (self.batch_size is not None and self.batch_size < 1) or not all(self.batches or ()):
            raise ConfigError("A batch needs one sequence or more.", hint="batch_size=1")
        if self.batches is not None and (self.batch_size, self.order, self.shuffle_seed) != (None, None, None):
            raise ConfigError(
                "Explicit batches leave nothing to batch_size, order and shuffle_seed.",
                hint="give one or the other",
            )

    def over(self, default: BatchComposition) -> BatchComposition:
        """This composition, with what it leaves open taken from `default`."""
        if self.batches is not None:
            return replace(default, batch_size=None, order=None, **self._decided())
        return replace(default, **self._decided())

    def settings(self) -> dict[str, Any]:
        """What it decides of the settings `batch_size`, `order`, `padding` and `prefix_cache`, by these names."""
        names = ("batch_size", "order", "padding", "prefix_cache")
        decided: dict[str, Any] = {name: getattr(self, name) for name in names}
        if self.batches is not None:
            decided |= {"batch_size": max(map(len, self.batches), default=None), "order": "explicit"}
        return {key: value for key, value in decided.items() if value is not None}

    def _decided(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if value is not None}
