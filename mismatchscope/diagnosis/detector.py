"""What a detector is, what it finds, and the list of all of them.

A detector is a function of a sample that answers with a finding or with None; `detector` registers it. Detectors
are asked in the order of `STAGES`, from what makes other figures meaningless to what is told from figures alone.

Shapes: N tokens, S sequences.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

import numpy as np

from .catalogue import causes as catalogue
from .evidence import Array, TokenEvidence
from .sample import Sample
from .statistics.stat import Stat

STAGES = (
    "values",
    "alignment",
    "sampler",
    "precision",
    "position",
    "grouping",
    "routing",
    "attention",
    "weights_or_attention",
)
"""The files of detectors/, in the order in which they are asked."""

MOST_IN_A_SET = 4
"""Causes at the most of a set that others join, or that is cut to the likeliest: a longer one helps nobody."""

Need = Literal["token ids", "versions", "metadata", "prompt lengths", "distributions", "whole distributions"]


@dataclass(frozen=True, eq=False)
class Picture:
    """The plot in which one sees it: points of one or more series, and lines where something changes."""

    kind: Literal["positions", "log_odds", "sequences", "groups", "values"]
    x_label: str
    y_label: str
    series: tuple[tuple[str, tuple[float | None, ...], tuple[float | None, ...]], ...]
    """Each with its name, its x and its y."""
    labels: tuple[str, ...] = ()
    """Of x, where it counts groups."""
    marks: tuple[tuple[str, float], ...] = ()
    """Places on x, with their names."""
    floor: float | None = None
    """A line at this y: what rounding makes."""


@dataclass(frozen=True, eq=False)
class Finding:
    """What a detector found. `causes` that it cannot tell apart are a set, the likeliest first.

    `why` is a sentence with its two numbers: what was measured, and what it is without the fault. `statistic` names
    the first, `value` has it, `null` the second, `false_alarm` the chance of it without a fault where it is known.
    `explained_N` are the tokens that it explains; `rest` is the sample without them, or with what the fault did
    undone, and None where there is nothing left to measure. `harmless` is true of a fact that is no fault.
    """

    causes: tuple[str, ...]
    why: str
    statistic: str
    value: Stat
    null: float | None
    explained_N: Array
    rest: Sample | None = None
    false_alarm: float | None = None
    scope: str | None = None
    sequences: tuple[int, ...] = ()
    """The sequences that it is about, where it is not about all."""
    picture: Picture | None = None
    harmless: bool = False
    settings: tuple[str, ...] = ()
    """Parts of names of settings that can be what differs."""
    detector: str = ""


class Detector(NamedTuple):
    """A registered detector. `needs` is what the evidence must have, `tokens` how many live ones at the least."""

    name: str
    stage: str
    causes: tuple[str, ...]
    needs: tuple[Need, ...]
    tokens: int
    find: Callable[[Sample], Finding | None]


_DETECTORS: dict[str, Detector] = {}


def detector(
    *causes: str, needs: tuple[Need, ...] = (), tokens: int = 1
) -> Callable[[Callable[[Sample], Finding | None]], Callable[[Sample], Finding | None]]:
    """Register a function of a file of detectors/ under the name of the file and its own.

    Raises ValueError for a cause that the catalogue does not have, and for a name that is taken.
    """

    def register(find: Callable[[Sample], Finding | None]) -> Callable[[Sample], Finding | None]:
        stage = find.__module__.rpartition(".")[2]
        name = f"{stage}.{find.__name__}"
        unknown = set(causes) - set(catalogue())
        if unknown or name in _DETECTORS:
            raise ValueError(f"the detector {name} is registered twice, or names {unknown}")
        _DETECTORS[name] = Detector(name, stage, causes, needs, tokens, find)
        return find

    return register


@cache
def detectors() -> tuple[Detector, ...]:
    """All of them, in the order in which they are asked: by stage, and within one as they are written."""
    for stage in STAGES:
        importlib.import_module(f"{__package__}.detectors.{stage}")
    return tuple(sorted(_DETECTORS.values(), key=lambda each: STAGES.index(each.stage)))


@cache
def not_shown() -> tuple[str, ...]:
    """Causes that no detector names: the tokens of two policies do not show them, an experiment does."""
    named = {cause for each in detectors() for cause in each.causes}
    return tuple(cause for cause in catalogue() if cause not in named)


def lacking(evidence: TokenEvidence, needs: tuple[Need, ...]) -> tuple[Need, ...]:
    """What a detector needs and the evidence does not have."""
    has: dict[Need, bool] = {
        "token ids": evidence.token_N is not None,
        "versions": evidence.version_N is not None,
        "metadata": bool(evidence.metadata),
        "prompt lengths": evidence.prompt_length_S is not None,
        "distributions": evidence.top is not None or evidence.full is not None,
        "whole distributions": evidence.full is not None,
    }
    return tuple(need for need in needs if not has[need])


def of_sequences(sample: Sample, chosen: Array) -> Array:
    """The live tokens of these sequences, numbers or a boolean [S]; bool [N]."""
    of_S = np.zeros(sample.evidence.sequences, dtype=bool)
    of_S[chosen] = True
    return of_S[sample.evidence.sequence_N] & sample.live_N
