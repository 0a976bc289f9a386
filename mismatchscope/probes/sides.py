"""The computations of a run that a probe can vary: the sampler's decoding, and the prefill of either side."""

from __future__ import annotations

from typing import NamedTuple

from ..collection.capabilities import capabilities_of
from ..engines.spec import EngineSpec
from .plan import Path, Question, Side


class Computation(NamedTuple):
    side: Side
    spec: EngineSpec
    path: Path

    def __str__(self) -> str:
        return f"{self.spec.name} {self.path}"


def computations(question: Question) -> list[Computation]:
    """How the behaviour decodes, where it can be forced to, else how it reads; how the reference reads."""
    decodes = "decode" in capabilities_of(question.behavior).paths
    behavior = Computation("behavior", question.behavior, "decode" if decodes else "prefill")
    reference = Computation("reference", question.reference, "prefill")
    same = (str(behavior.spec), behavior.path) == (str(reference.spec), reference.path)
    return [behavior] if same else [behavior, reference]
