"""One trace at a time: sampled from an engine, or the tokens of another trace forced through one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from ..composition import BatchComposition
from ..config import AuditSettings
from ..engines.runtime.launcher import run_job
from ..engines.spec import parse_spec, with_adapter
from ..records import Role, Sampling
from ..traces.schema import Manifest
from .capabilities import check_capabilities, plan_evidence
from .collector import Collector, Events, RunJob
from .embedded import chosen_prompts
from .passes import Pass, scoring


def sample_trace(settings: AuditSettings, trace: Path, *, on_event: Events, run: RunJob = run_job) -> Manifest:
    """Sample from `settings.behavior` into `trace`; returns its manifest. `run` does the engine's job.

    Raises any of `errors`.
    """
    spec = with_adapter(parse_spec(settings.behavior), settings.adapter)
    prompts = chosen_prompts(settings)
    planned = plan_evidence(settings, [spec], prompts=len(prompts), traces=1)
    on_event({"event": "evidence", "side": "behavior", "sentence": planned.sentence})
    evidence = planned.evidence
    check_capabilities(spec, evidence=evidence, path=None, rollout=True)
    rollout = Pass(trace, "behavior", evidence, "processed", settings.sampling.sampling())
    collector = Collector(settings.model, prompts, settings.sampling.samples, run=run)
    collector.collect(spec, [rollout], log_path=_log_path(trace), on_event=on_event)
    return collector.trace(trace).manifest


@dataclass(frozen=True)
class ScoreSettings:
    """How the tokens of a trace are forced through an engine.

    `temperature` is what the scorer divides its logits by, by default the temperature the tokens were sampled at.
    """

    engine: str  # a SPEC
    model: str
    role: Role = "reference"
    path: Literal["decode", "prefill"] = "prefill"
    temperature: float | None = None
    shuffle_seed: int | None = None
    adapter: str | None = None


def score_trace(
    source: Path, trace: Path, settings: ScoreSettings, *, on_event: Events, run: RunJob = run_job
) -> Manifest:
    """Force the tokens of the trace `source` through an engine, with the same evidence and policy.

    The behaviour role repeats its sampler's top-k and top-p too; a trainer has none. `run` does the engine's job.
    Raises any of `errors`.
    """
    spec = with_adapter(parse_spec(settings.engine), settings.adapter)
    collector = Collector(settings.model, run=run)
    behavior = collector.trace(source).manifest
    check_capabilities(spec, evidence=behavior.evidence, path=settings.path, rollout=False)
    sampler = Sampling(**asdict(behavior.sampling or Sampling()))
    score = Pass(
        trace,
        settings.role,
        behavior.evidence,
        behavior.policy,
        scoring(sampler, settings.role, settings.temperature),
        source=source,
        path=settings.path,
        composition=BatchComposition(shuffle_seed=settings.shuffle_seed),
    )
    collector.collect(spec, [score], log_path=_log_path(trace), on_event=on_event)
    return collector.trace(trace).manifest


def _log_path(trace: Path) -> Path:
    return trace.with_name(f"{trace.name}.log")
