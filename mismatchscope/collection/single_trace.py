"""One trace at a time: sampled from an engine, or the tokens of another trace forced through one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from ..composition import BatchComposition
from ..config import AuditSettings
from ..engines.spec import parse_spec
from ..probes.audit import audit_prompts, plan_evidence
from ..records import Role, Sampling
from ..traces.store import Manifest, Trace, read_manifest
from .collector import Pass, check_capabilities, collect, scoring

Events = Callable[[dict[str, Any]], None]


def sample_trace(settings: AuditSettings, trace: Path, *, on_event: Events) -> Manifest:
    """Sample from `settings.behavior` into `trace`; returns its manifest. Raises any of `errors`."""
    spec = parse_spec(settings.behavior)
    prompts = audit_prompts(settings)
    evidence = plan_evidence(settings, [spec], prompts=len(prompts), traces=1)
    check_capabilities(spec, evidence=evidence, path=None, rollout=True)
    collect(
        spec,
        settings.model,
        [Pass(trace, "behavior", evidence, "processed", settings.sampling.sampling())],
        prompts=prompts,
        samples=settings.sampling.samples,
        log_path=trace.with_name(f"{trace.name}.log"),
        on_event=on_event,
    )
    return read_manifest(trace)


def score_trace(
    source: Path,
    trace: Path,
    *,
    engine: str,
    model: str,
    role: Role,
    path: Literal["decode", "prefill"],
    temperature: float | None,
    shuffle_seed: int | None,
    on_event: Events,
) -> Manifest:
    """Force the tokens of the trace `source` through an engine, with the same evidence and policy.

    `temperature` is what the scorer divides its logits by, by default the temperature the tokens were sampled at.
    The behaviour role repeats its sampler's top-k and top-p too; a trainer has none. Raises any of `errors`.
    """
    spec = parse_spec(engine)
    behavior = Trace.open(source).manifest
    check_capabilities(spec, evidence=behavior.evidence, path=path, rollout=False)
    sampler = behavior.sampling or Sampling()
    collect(
        spec,
        model,
        [
            Pass(
                trace,
                role,
                behavior.evidence,
                behavior.policy,
                scoring(sampler, role, temperature),
                source=source,
                path=path,
                composition=BatchComposition(shuffle_seed=shuffle_seed),
            )
        ],
        log_path=trace.with_name(f"{trace.name}.log"),
        on_event=on_event,
    )
    return read_manifest(trace)
