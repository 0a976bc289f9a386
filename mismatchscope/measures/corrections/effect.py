"""What one rule does, sequence by sequence, and its sums over many.

Shapes: S sequences of a block. U = units that a rule weights, tokens or sequences.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Literal

import numpy as np

from ..correction_results import Correction
from .block import RETAINED

Array = np.ndarray
Unit = Literal["token", "sequence"]

_ADDED_UP = (
    "tokens",
    "sequences",
    "units",
    "kept_tokens",
    "kept_sequences",
    "removed",
    "added",
)
_LOGARITHMS = ("log_weight", "log_square", "log_ratio")


@dataclass(frozen=True, eq=False)
class Effect:
    """Sums over the units of each sequence of a block, [S]. Weights as logarithms: whole responses overflow."""

    unit: Unit
    length_S: Array
    kept_S: Array
    """Tokens of the sequence that are kept."""
    log_weight_S: Array
    """log Σ w."""
    log_square_S: Array
    """log Σ w²."""
    log_ratio_S: Array
    """log Σ of the ratio that w stands in for."""
    removed_S: Array
    """Σ (ratio - w)_+."""
    added_S: Array
    """Σ (w - ratio)_+."""
    retained_S: dict[str, Array | None]
    """Sums over the kept tokens, by the names of `RETAINED`."""

    def only(self, chosen_S: Array) -> Effect:
        """Of some of the sequences, by their places."""
        values = {
            each.name: getattr(self, each.name)[chosen_S]
            for each in fields(self)
            if each.name.endswith("_S") and each.name != "retained_S"
        }
        retained_S = {name: None if sum_S is None else sum_S[chosen_S] for name, sum_S in self.retained_S.items()}
        return Effect(unit=self.unit, retained_S=retained_S, **values)

    def sums(self, chosen_S: Array | slice = slice(None)) -> RuleSums:
        """Of all sequences, or of some."""
        length_S, kept_S = self.length_S[chosen_S], self.kept_S[chosen_S]
        tokens, sequences = int(length_S.sum()), len(length_S)
        return RuleSums(
            unit=self.unit,
            tokens=tokens,
            sequences=sequences,
            units=tokens if self.unit == "token" else sequences,
            kept_tokens=int(kept_S.sum()),
            kept_sequences=int(np.count_nonzero(kept_S)),
            removed=float(self.removed_S[chosen_S].sum()),
            added=float(self.added_S[chosen_S].sum()),
            log_weight=_log_sum(self.log_weight_S[chosen_S]),
            log_square=_log_sum(self.log_square_S[chosen_S]),
            log_ratio=_log_sum(self.log_ratio_S[chosen_S]),
            retained={
                name: None if sum_S is None else float(sum_S[chosen_S].sum())
                for name, sum_S in self.retained_S.items()
            },
        )


@dataclass
class RuleSums:
    """What one rule did to all blocks so far."""

    unit: Unit
    tokens: int = 0
    sequences: int = 0
    units: int = 0
    kept_tokens: int = 0
    kept_sequences: int = 0
    removed: float = 0.0
    added: float = 0.0
    log_weight: float = -math.inf
    log_square: float = -math.inf
    log_ratio: float = -math.inf
    retained: dict[str, float | None] = field(default_factory=lambda: dict.fromkeys(RETAINED, 0.0))
    """Sums over the retained tokens; None once a block did not know them."""

    def merge(self, other: RuleSums) -> None:
        for name in _ADDED_UP:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in _LOGARITHMS:
            setattr(self, name, float(np.logaddexp(getattr(self, name), getattr(other, name))))
        for name, value in other.retained.items():
            mine = self.retained[name]
            self.retained[name] = None if mine is None or value is None else mine + value

    @property
    def mean_weight(self) -> float:
        return _exp(self.log_weight - math.log(self.units))

    @property
    def ess_fraction(self) -> float | None:
        if self.log_weight == -math.inf:
            return None
        return min(math.exp(2 * self.log_weight - self.log_square) / self.units, 1.0)

    def correction(self, name: str, parameters: dict[str, float], remark: str | None = None) -> Correction:
        kept = self.kept_tokens

        def mean(known: str, estimate: str) -> float | None:
            total = self.retained[known] if self.retained[known] is not None else self.retained[estimate]
            return total / kept if kept and total is not None else None

        weight, square = self.mean_weight, _exp(self.log_square - math.log(self.units))
        finite = math.isfinite(weight) and math.isfinite(square)
        return Correction(
            name=name,
            parameters=parameters,
            unit=self.unit,
            kept_tokens=kept / self.tokens,
            kept_sequences=self.kept_sequences / self.sequences,
            clipped_mass=self.removed / self.units,
            added_mass=self.added / self.units,
            mean_ratio=_exp(self.log_ratio - math.log(self.units)),
            mean_weight=weight,
            weight_variance=max(square - weight * weight, 0.0) if finite else None,
            chi2=max(square - 2 * weight + 1, 0.0) if finite else None,
            ess_fraction=self.ess_fraction,
            ratio_retained=mean("ratio", "ratio"),
            tv_retained=mean("tv", "tv_estimate"),
            kl_retained=mean("kl", "kl_estimate"),
            remark=remark,
        )


def _log_sum(log_values_S: Array) -> float:
    """log Σ exp."""
    largest = float(log_values_S.max()) if len(log_values_S) else -math.inf
    if math.isinf(largest):
        return largest
    return largest + math.log(float(np.exp(log_values_S - largest).sum()))


def _exp(value: float) -> float:
    return math.exp(value) if value < 709 else math.inf
