"""What is recorded of each state's distribution: as much as the engines can see and the byte budget holds."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from ..config import AuditSettings, parse_evidence, parse_size
from ..errors import ConfigError
from ..records import Evidence, EvidenceLevel

_FULL_ENTRY_BYTES = 4  # float32
_TOPK_ENTRY_BYTES = 12  # int32 id, float64 log-prob
_AUTO_K = (64, 32, 16, 8)


@dataclass(frozen=True)
class StatesToRecord:
    """`traces` traces of at most `tokens` response tokens each, which share the budget.

    `vocabulary` is None where it is unknown; `visible` are the levels that every engine of the run can see.
    """

    tokens: int
    traces: int
    vocabulary: int | None
    visible: Collection[EvidenceLevel] = ("full", "topk", "sampled")

    def full_bytes(self, fraction: float = 1.0) -> float:
        """Of full distributions; infinite for an unknown vocabulary."""
        if self.vocabulary is None:
            return float("inf")
        return self.tokens * self.traces * self.vocabulary * _FULL_ENTRY_BYTES * fraction

    def topk_bytes(self, k: int) -> int:
        return self.tokens * self.traces * k * _TOPK_ENTRY_BYTES


@dataclass(frozen=True)
class PlannedEvidence:
    """What will be recorded and `why` that; `restore` is the option that would record whole distributions of every
    state, None where they will be, or where no option helps."""

    evidence: Evidence
    why: str
    restore: str | None = None

    @property
    def sentence(self) -> str:
        """One line for a person who is about to wait."""
        restore = f"; {self.restore} would record them" if self.restore else ""
        return f"{self.evidence.level} evidence ({self.why}{restore})"


def plan_recording(settings: AuditSettings, states: StatesToRecord) -> PlannedEvidence:
    """`choose_evidence`, and the reason for what it chose. Raises `ConfigError` as that does."""
    evidence = choose_evidence(settings, states)
    if parse_evidence(settings.evidence)[0] != "auto":
        return PlannedEvidence(evidence, "as asked for")
    needed, budget = states.full_bytes(), settings.budget
    if evidence.level == "full":
        return PlannedEvidence(evidence, f"auto: whole distributions fit, up to {_gib(needed)} of {budget}")
    if "full" not in states.visible:
        return PlannedEvidence(evidence, "auto: not every engine shows its whole distributions")
    if states.vocabulary is None:
        why = "auto: the size of the vocabulary, and so of whole distributions, is not known before the start"
        return PlannedEvidence(evidence, why, "--evidence full")
    why = f"auto: whole distributions may need {_gib(needed)}, more than the budget of {budget}"
    return PlannedEvidence(evidence, why, f"--budget {math.ceil(needed / 2**30)}GiB")


def choose_evidence(settings: AuditSettings, states: StatesToRecord) -> Evidence:
    """Turn `--evidence` into what will be recorded, within the byte budget.

    `auto` takes the strongest level that fits: full, else top-k with the largest K of 64, 32, 16, 8, else sampled.
    An explicit level that does not fit raises `ConfigError`, with what would fit.
    """
    level, argument = parse_evidence(settings.evidence)
    seed, budget = settings.sampling.seed, parse_size(settings.budget)
    if level == "auto":
        return _strongest(states, budget, seed)
    if level == "full":
        needed = states.full_bytes(argument) if states.vocabulary is not None else 0.0
        if needed > budget:
            share = budget / states.full_bytes()
            raise ConfigError(
                f"Full distributions need up to {_gib(needed)}, more than the budget of {settings.budget}.",
                hint=f"--evidence full:{share:.2g} (a random share of the states), topk:64, or a larger --budget",
            )
        return Evidence("full", fraction=argument, seed=seed)
    if level == "topk":
        k = int(argument)
        needed = states.topk_bytes(k)
        if needed > budget:
            raise ConfigError(
                f"Top-{k} evidence needs up to {_gib(needed)}, more than the budget of {settings.budget}.",
                hint=f"--evidence topk:{max(1, budget // states.topk_bytes(1))} or a larger --budget",
            )
        return Evidence("topk", k=k, seed=seed)
    return Evidence("sampled", seed=seed)


def _strongest(states: StatesToRecord, budget: int, seed: int) -> Evidence:
    if "full" in states.visible and states.full_bytes() <= budget:
        return Evidence("full", seed=seed)
    fitting = [k for k in _AUTO_K if "topk" in states.visible and states.topk_bytes(k) <= budget]
    if fitting:
        return Evidence("topk", k=min(fitting[0], states.vocabulary or fitting[0]), seed=seed)
    return Evidence("sampled", seed=seed)


def _gib(size: float) -> str:
    return f"{size / 2**30:.2g} GiB" if size < 2**30 else f"{size / 2**30:.1f} GiB"
