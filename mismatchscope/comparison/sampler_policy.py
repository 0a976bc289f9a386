"""What a sampler's transforms make of a raw policy: in which order they come, and what a trainer has of them.

Shapes: M states, V vocabulary, U entries (of ids that occur before a state).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ..measures import sampler
from ..records import Transforms

RAW = "raw"
_PENALTIES = ("presence_penalty", "frequency_penalty")
_CUTS = ("min_p", "top_k", "top_p")


class Step(NamedTuple):
    """A sampler, what it is called, and what the trainer beside it divides its logits by."""

    label: str
    sampling: Transforms
    trainer_temperature: float


class Occurrences(NamedTuple):
    """The ids that occur in the response before each state, and how often."""

    state_U: np.ndarray
    id_U: np.ndarray
    count_U: np.ndarray


def steps_of(sampling: Transforms, trainer_temperature: float | None) -> Iterator[Step]:
    """From no transform to all. From the temperature on, the trainer has its own too, by default the same."""
    made = Transforms()
    yield Step(RAW, made, 1.0)
    for key in _PENALTIES:
        if value := getattr(sampling, key):
            made = replace(made, **{key: value})
            yield Step(f"{key}={value:g}", made, 1.0)
    divisor = temperature_beside(sampling, trainer_temperature)
    if sampling.temperature != 1.0 or divisor != 1.0:
        made = replace(made, temperature=sampling.temperature)
        label = f"temperature={sampling.temperature:g}"
        alone = divisor == sampling.temperature
        yield Step(label if alone else f"{label}, trainer's {divisor:g}", made, divisor)
    for key in _CUTS:
        value = getattr(sampling, key)
        if value != getattr(Transforms(), key):
            made = replace(made, **{key: value})
            yield Step(f"{key}={value:g}", made, divisor)


def temperature_beside(sampling: Transforms, trainer_temperature: float | None) -> float:
    """What the trainer of a sampler divides by; greedy decoding has no temperature to divide by."""
    return trainer_temperature or sampling.temperature or 1.0


def penalises(sampling: Transforms) -> bool:
    return any(getattr(sampling, key) for key in _PENALTIES)


class RawPolicy:
    """A raw policy at some states, and what transforms make of it, in float64."""

    def __init__(self, logp_MV: np.ndarray, before: Occurrences | None, *, at_once: bool) -> None:
        """`before` is needed where a sampler penalises. `at_once`: min-p, top-k and top-p each cut the whole."""
        self._logp_MV = sampler.normalised(logp_MV.astype(np.float64))
        self._before, self._at_once = before, at_once

    def divided(self, temperature: float) -> np.ndarray:
        """With a temperature and no other transform."""
        return self._logp_MV if temperature == 1.0 else sampler.normalised(self._logp_MV / temperature)

    def uncut(self, sampling: Transforms) -> np.ndarray:
        """With penalties and temperature: what a sampler cuts ids off."""
        if not penalises(sampling):
            return self.divided(sampling.temperature or 1.0)
        assert self._before is not None
        logit_MV = sampler.penalised(
            self._logp_MV,
            *self._before,
            presence=sampling.presence_penalty,
            frequency=sampling.frequency_penalty,
        )
        return sampler.normalised(logit_MV / (sampling.temperature or 1.0))

    def kept(self, sampling: Transforms, uncut_MV: np.ndarray) -> np.ndarray:
        """Boolean [M, V]: the ids that the sampler leaves of `uncut_MV`."""
        if sampling.temperature == 0:
            return sampler.most_probable(uncut_MV)
        return sampler.kept(
            uncut_MV, min_p=sampling.min_p, top_k=sampling.top_k, top_p=sampling.top_p, at_once=self._at_once
        )
