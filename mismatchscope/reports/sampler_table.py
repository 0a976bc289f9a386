"""The table of a sampler's transforms: what each does to the policy, and to its distance from the trainer."""

from __future__ import annotations

from .logs.section import interval_text
from .pair_fields import Probe
from .sampler_fields import SamplerStep
from .text import number

STEPS = (
    "sampler",
    "mean TV",
    "perfect numerics",
    "kept mass",
    "least kept",
    "kept set replayed",
    "added",
    "kept ids",
)


def step_rows(probe: Probe) -> tuple[tuple[str, ...], ...]:
    return tuple(map(_row, probe.transforms))


def name_of(step: SamplerStep) -> str:
    """`top_p=0.9`, or `tried: min_p=0.05`."""
    return f"tried: {step.change}" if step.tried else step.change


def _row(step: SamplerStep) -> tuple[str, ...]:
    return (
        name_of(step),
        interval_text(step.tv),
        interval_text(step.floor),
        interval_text(step.kept.mean),
        number(step.kept.least),
        interval_text(step.replayed),
        "" if step.added is None else interval_text(step.added),
        number(step.kept.ids),
    )
