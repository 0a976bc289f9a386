"""What a plant is: a cause, the way it is put in, and how its severity is set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from bench import Bench
from draws import Sampler

Kind = Literal["control", "model", "log", "sampler", "two"]


@dataclass(frozen=True)
class Plant:
    """One way to plant a cause. `cause` has the codes of the catalogue that are right for it: any one of them is,
    as where a number fills tokens that are in the mask by mistake.

    `put` works on a bench with a strength between the two `strengths`, whose effect is measured on a few responses
    so that severities can be spread evenly; where there are none, the severity is what it is. `sampler` says what
    the sampler does at a strength.
    """

    name: str
    kind: Kind
    cause: tuple[str, ...]
    put: Callable[[Bench, float], None]
    strengths: tuple[float, float] | None = None
    sampler: Callable[[float], Sampler] | None = None
    models: tuple[str, ...] | None = None
    stacks: tuple[str, ...] | None = None


PLANTS: dict[str, Plant] = {}


def plant(
    name: str,
    cause: str,
    *others: str,
    kind: Kind = "model",
    strengths: tuple[float, float] | None = None,
    models: tuple[str, ...] | None = None,
    stacks: tuple[str, ...] | None = None,
) -> Callable[[Callable[[Bench, float], None]], Callable[[Bench, float], None]]:
    """Register a function that plants a cause."""

    def register(put: Callable[[Bench, float], None]) -> Callable[[Bench, float], None]:
        PLANTS[name] = Plant(name, kind, (cause, *others), put, strengths, models=models, stacks=stacks)
        return put

    return register
