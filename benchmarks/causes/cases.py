"""Planted cases: one cause, or two, or none, in a pair of policies, with what is true of it.

The two parts of the benchmark have no prompt, no draw, no update of weights and no seed in common; the held-out one
also has a stack, a model and a kernel that development has not. Everything follows from the names of a case.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import faults_of_the_context  # noqa: F401 - registers its plants
import faults_of_the_log  # noqa: F401
import faults_of_the_model  # noqa: F401
import faults_of_the_sampler  # noqa: F401
import numpy as np
from bench import Bench, Columns, excess
from plants import PLANTS, Plant

Part = Literal["development", "held-out"]
ROUNDING = "ordinary_rounding"
STACKS = ("bf16", "bf16, fp32 heads", "fp32")
HELD_OUT_STACK = "bf16, fp32 heads"
HELD_OUT_MODEL = "neox"
MODELS = ("dense", "moe", "llama", HELD_OUT_MODEL)
CONTROL, TWO = "no fault", "two causes"
CONTROLS_A_CASE = 5
"""Controls for each case of a cause."""
TWO_LOG = ("numbers that are none", "filled with zeros", "off by one", "retokenised", "tool output in the mask")
TWO_MODEL = (
    "temperature of the trainer",
    "stale weights",
    "one worker",
    "rope scaling",
    "attention scale",
    "adapter",
    "dropout",
)
HIDDEN, SHOWN = 1.25, 1.5
"""Below the first, in floors, rounding is the right answer; between the two, a case is not counted."""


@dataclass(frozen=True)
class Key:
    """What a case is made of. Two cases with equal keys are equal."""

    part: Part
    model: str
    stack: str
    plant: str
    number: int

    @property
    def seed(self) -> int:
        return zlib.crc32(repr(self).encode())


@dataclass(frozen=True)
class Truth:
    """What is true of a case. `causes` has, for each fault, the codes of which any one is right; none for rounding.
    `severity` is rms z over that of the same stacks without a fault."""

    causes: tuple[tuple[str, ...], ...]
    severity: float
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def hidden(self) -> bool:
        """Whether rounding is the right answer: there is no fault, or it is below what rounding does."""
        return not self.causes or self.severity < HIDDEN

    @property
    def counted(self) -> bool:
        return not self.causes or not HIDDEN <= self.severity < SHOWN


def keys(part: Part, cases: int) -> Iterator[Key]:
    """The keys of a part, `cases` of every plant for each model and stack that it fits."""
    for model in MODELS:
        for stack in STACKS:
            if part == "development" and (stack == HELD_OUT_STACK or model == HELD_OUT_MODEL):
                continue
            for number in range(cases):
                for plant in (*PLANTS.values(), None):
                    if plant is None:
                        yield Key(part, model, stack, TWO, number)
                    elif fits(plant, model, stack):
                        yield Key(part, model, stack, plant.name, number)
                for control in range(CONTROLS_A_CASE):
                    yield Key(part, model, stack, CONTROL, CONTROLS_A_CASE * number + control)


def fits(plant: Plant, model: str, stack: str) -> bool:
    return (plant.models is None or model in plant.models) and (plant.stacks is None or stack in plant.stacks)


def target(key: Key, rng: np.random.Generator) -> float:
    """A severity in floors, log-uniform. A floor of float32 is so low that faults are spread further above it."""
    high = 2e4 if key.stack == "fp32" else 120.0
    return float(np.exp(rng.uniform(np.log(0.9), np.log(high))))


def plants_of(key: Key, rng: np.random.Generator) -> list[Plant]:
    """The plants of a case, those of a model before those of a log."""
    if key.plant == CONTROL:
        return []
    if key.plant == TWO:
        return [PLANTS[str(rng.choice(TWO_MODEL))], PLANTS[str(rng.choice(TWO_LOG))]]
    return [PLANTS[key.plant]]


def put_all(bench: Bench, plants: list[Plant], strengths: list[float]) -> None:
    for plant, strength in zip(plants, strengths, strict=True):
        plant.put(bench, strength)


def metadata(sequences: int, prompt_S: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """What a log tells of each response, whether or not it has to do with anything: plants that need a column read
    or replace it, and all the others, and sound cases, have it too."""
    step_S = np.sort(rng.integers(0, 4, sequences))
    lag_S = rng.integers(0, 3, sequences)
    return {
        "worker": rng.choice([f"w{number}" for number in range(int(rng.integers(3, 6)))], sequences),
        "step": step_S,
        "lag": lag_S,
        "policy_version": step_S - lag_S,
        "slot": rng.integers(0, 3, sequences),
        "padding": rng.integers(0, 20, sequences),
        "cached_tokens": np.where(rng.random(int(prompt_S.max()) + 1) < 0.5, 8 * rng.integers(1, 4), 0)[prompt_S],
    }


def columns_of(bench: Bench, plants: list[Plant]) -> tuple[Columns, float | None]:
    """The columns of a case, and where there are two faults the rms of z before the second one."""
    if len(plants) < 2:
        return bench.finish(), None
    edits, bench.edits = bench.edits, []
    columns = bench.finish()
    first = excess(columns.mu_N, columns.pi_N)
    for edit in edits:
        edit(columns)
    return columns, first
