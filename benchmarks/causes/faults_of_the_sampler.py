"""Faults of the sampler: μ's log-probs are those after its transforms, and π knows of none."""

from __future__ import annotations

from collections.abc import Callable

from bench import Bench
from draws import Sampler
from plants import PLANTS, Plant


def _nothing(bench: Bench, strength: float) -> None:
    """The draws have it already."""


def _sampler(name: str, cause: str, strengths: tuple[float, float], sampler: Callable[[float], Sampler]) -> None:
    PLANTS[name] = Plant(name, "sampler", (cause,), _nothing, strengths, sampler)


_sampler("temperature of the sampler", "temperature", (0.001, 0.6), lambda s: Sampler(temperature=1 / (1 + s)))
_sampler("top-p", "truncation", (0.0005, 0.5), lambda s: Sampler(top_p=1 - s))
_sampler("top-k", "truncation", (0.02, 0.5), lambda s: Sampler(top_k=max(1, round(1 / s))))
_sampler("min-p", "truncation", (0.0003, 0.5), lambda s: Sampler(min_p=s))
_sampler("repetition penalty", "penalty", (0.001, 0.5), lambda s: Sampler(repetition_penalty=1 + s))
