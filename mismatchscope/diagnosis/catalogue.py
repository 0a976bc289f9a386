"""The causes of a mismatch and the experiments that tell them apart, as catalogue.toml beside this file has them.

A detector names causes by their codes. Those that no detector can tell from one another are named in a set, with
the experiment that decides; `shows` says so of a cause that passive evidence does not show at all.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

ROUNDING = "ordinary_rounding"
UNKNOWN = "unknown"

Family = Literal[
    "values",
    "alignment",
    "grouping",
    "position",
    "sampler",
    "precision",
    "weights",
    "attention",
    "routing",
    "context",
]


class Experiment(NamedTuple):
    """Something to run that tells causes apart. `cost` orders experiments: 0 needs no run at all."""

    question: str
    how: str
    cost: int


class Cause(NamedTuple):
    """A row of the catalogue. `family` is what the cause is about, `experiment` the one that singles it out."""

    title: str
    shows: str
    fix: str
    experiment: str
    family: Family


@cache
def causes() -> dict[str, Cause]:
    """Every cause by its code, in the order of the file."""
    found = {code: Cause(**row) for code, row in _file()["causes"].items()}
    for code, cause in found.items():
        if cause.family not in get_args(Family) or cause.experiment not in experiments():
            raise ValueError(f"catalogue.toml: {code} has an unknown family or experiment")
    return found


@cache
def experiments() -> dict[str, Experiment]:
    """Every experiment by its name."""
    return {name: Experiment(**row) for name, row in _file()["experiments"].items()}


@cache
def _file() -> dict[str, dict[str, dict[str, Any]]]:
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
