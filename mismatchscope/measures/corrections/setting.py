"""One correction as it is applied: a rule at thresholds, or a trainer's preset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .block import RatioBlock
from .catalogue import RULES
from .effect import Effect
from .presets import BY_KEY


@dataclass(frozen=True)
class Setting:
    """`name` is of `catalogue.RULES`, or the key of a preset, which has no parameters. It is data alone."""

    name: str
    parameters: Mapping[str, float] = field(default_factory=dict)

    @property
    def needs(self) -> tuple[str, ...]:
        return RULES[self.name].needs if self.name in RULES else BY_KEY[self.name].needs

    def apply(self, block: RatioBlock) -> Effect:
        if self.name in RULES:
            return RULES[self.name].apply(block, **self.parameters)
        return BY_KEY[self.name].apply(block)

    def remark(self, known: frozenset[str]) -> str | None:
        """What stood in for something that was not among the `known`, and what else is to be said."""
        return RULES[self.name].remark(known) if self.name in RULES else BY_KEY[self.name].remarks(known)
