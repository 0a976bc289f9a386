"""Passes: which traces a run makes, each a rollout of prompts or a score of another trace's tokens."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from ..composition import BatchComposition
from ..config import AuditSettings
from ..engines.spec import EngineSpec
from ..records import Evidence, Policy, Role, Sampling
from ..traces.store import raw_path_of
from .capabilities import capabilities_of

# Any seed will do, as long as it is another order than the first one.
REPEAT_SHUFFLE_SEED = 1


@dataclass(frozen=True)
class Beside:
    """Another setting of the same engine, which scores the same batches in the same process. `spec` is its SPEC."""

    spec: str
    role: Role
    sampling: Sampling


@dataclass(frozen=True)
class Inside:
    """What an engine shows of the inside of its model as it reads the tokens of the trace `source`, each sequence
    by itself: `stages` as `engines.common.stages` names them, a file a sequence in `directory`. `extent`: of so
    many sequences and tokens of each (0: all); `inputs`: on the values that another side has shown."""

    directory: Path
    source: Path
    stages: tuple[str, ...]
    extent: tuple[int, int] = (0, 0)
    inputs: Path | None = None


@dataclass(frozen=True)
class Given:
    """Another side's values that a score goes on from: those of `stages` in `directory`, which `name` tells from
    any other content."""

    directory: Path
    stages: tuple[str, ...]
    name: str


@dataclass(frozen=True)
class Pass:
    """One trace to make. `source` is the trace whose tokens a score forces; None is a rollout of the run's prompts.

    `sampling` is what a rollout draws with, and what a scored "processed" policy is seen through (see `scoring`).
    `needs_raw`: a rollout is of no use without the raw policy, which is recorded beside the processed one. `beside`
    gets a trace of its own (`store.beside_path_of`), and this one the exact figures of it against this policy.
    `given`: a score of a forward that is not all the engine's own.
    """

    trace: Path
    role: Role
    evidence: Evidence
    policy: Policy
    sampling: Sampling
    source: Path | None = None
    path: Literal["decode", "prefill"] = "prefill"
    composition: BatchComposition = field(default_factory=BatchComposition)
    needs_raw: bool = False
    given: Given | None = None
    beside: Beside | None = None


def scoring(sampler: Sampling, role: Role, temperature: float | None) -> Sampling:
    """The transforms between logits and the policy of a scored trace.

    The behaviour side repeats all that its sampler does. A trainer divides its logits by `temperature` (default:
    the sampler's; 1 for greedy decoding, which has none to divide by) and cuts nothing off.
    """
    if role == "behavior":
        return sampler if temperature is None else replace(sampler, temperature=temperature)
    trainer = Sampling(seed=sampler.seed, max_new_tokens=sampler.max_new_tokens)
    return replace(trainer, temperature=temperature or sampler.temperature or 1.0)


def decodes(spec: EngineSpec) -> bool:
    """Whether the engine can force tokens through the path that sampling takes; a server cannot."""
    return "decode" in capabilities_of(spec).paths


def plan_audit(
    settings: AuditSettings, directory: Path, evidence: Evidence, behavior: EngineSpec
) -> dict[str, list[Pass]]:
    """The passes of the two sides of an audit, each in the order in which its engine does them.

    A repeat forces the same tokens through the same path in another order, so that every batch has other members:
    what the same side would have said in another run. An engine that does not force tokens through decoding has no
    behaviour repeat.
    """
    sampler = settings.sampling.sampling()
    # "support" renormalises π on what μ really kept, which is the processed policy's support.
    recorded: Policy = "raw" if settings.policy == "raw" and sampler.transforms else "processed"
    rollout = Pass(directory / "behavior", "behavior", evidence, "processed", sampler, needs_raw=recorded == "raw")
    score = Pass(
        directory / "reference",
        "reference",
        evidence,
        recorded,
        scoring(sampler, "reference", settings.reference_temperature),
        source=raw_path_of(rollout.trace) if rollout.needs_raw else rollout.trace,
    )
    passes = {"behavior": [rollout], "reference": [score]}
    if settings.repeats:
        passes["reference"].append(_repeat(score))
        if decodes(behavior):
            again = replace(rollout, policy=recorded, source=rollout.trace, path="decode")
            passes["behavior"].append(_repeat(again))
    return passes


def _repeat(first: Pass) -> Pass:
    trace = first.trace.with_name(f"{first.role}-repeat")
    return replace(first, trace=trace, composition=BatchComposition(shuffle_seed=REPEAT_SHUFFLE_SEED))
