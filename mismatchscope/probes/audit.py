"""The whole way: prompts -> rollouts -> scores -> report, in one directory that an interrupted run goes on in.

DIR/
  run.json                                      what was asked for
  behavior/  behavior-repeat/                   traces of the policy that samples, and of it once more
  reference/ reference-repeat/                  traces of the policy that trains, and of it once more
  baseline/                                     trace of the engine to compare the behaviour with, if any
  logs/                                         what each engine said
  report.json, report.html, report.md, …       the answer
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import gate
from ..collection.collector import Pass, check_capabilities, collect, resolve_model, scoring, vocabulary_size
from ..collection.evidence import StatesToRecord, choose_evidence
from ..comparison.compare_traces import compare
from ..comparison.floors import Repeats
from ..composition import BatchComposition
from ..config import AuditSettings
from ..defaults import DEFAULT_PROMPTS
from ..demo import prompts_path
from ..engines.base import Capabilities
from ..engines.registry import engine_class
from ..engines.spec import EngineSpec, parse_spec
from ..environments import interpreter
from ..errors import CapabilityError, OutputExistsError
from ..prompts import Prompt, load_prompts
from ..records import Evidence, Policy, write_atomic
from ..reports.document import Report
from ..traces.store import Trace

# Any seed will do, as long as it is another order than the first one.
REPEAT_SHUFFLE_SEED = 1

Events = Callable[[dict[str, Any]], None]


def audit(
    settings: AuditSettings, directory: Path, *, command: str, on_event: Events, resume: bool = False
) -> Report:
    """Run the audit that `settings` describe in `directory` and return its report, gates decided.

    Events are those of the engines' workers, each with the `side` it belongs to, and {"event": "measured", "rows"}.
    Raises any of `errors`; what was finished is kept, and the same call with `resume` goes on from there.
    """
    started = time.monotonic()
    gate.check_without_baseline(settings.gate.fail_on)
    _claim(directory, settings, resume=resume)
    specs = {"behavior": parse_spec(settings.behavior), "reference": parse_spec(settings.reference)}
    if settings.baseline is not None:
        specs["baseline"] = parse_spec(settings.baseline)
    behavior = specs["behavior"]
    prompts = audit_prompts(settings)
    stored = len(specs) + (2 if settings.repeats else 0)
    evidence = plan_evidence(settings, list(specs.values()), prompts=len(prompts), traces=stored)
    for side, spec in specs.items():
        path = "prefill" if side == "reference" else None
        check_capabilities(spec, evidence=evidence, path=path, rollout=side == "behavior")
    for spec in specs.values():
        interpreter(spec)  # an environment that is missing must not be found out after the rollouts
    passes = plan(settings, directory, evidence, specs)
    for side, spec in specs.items():
        collect(
            spec,
            settings.model,
            passes[side],
            prompts=prompts,
            samples=settings.sampling.samples,
            log_path=directory / "logs" / f"{side}.log",
            on_event=lambda event, side=side: on_event(event | {"side": side}),
        )
        if not measured_behavior(settings, directory).exists():
            raise CapabilityError(
                f"The engine {behavior.name} does not show its raw policy under these sampling transforms.",
                hint="--policy processed, or sampling without temperature, top-k and top-p",
            )
    traces = {one.trace.name: Trace.open(one.trace) for side in passes.values() for one in side}
    report = compare(
        Trace.open(measured_behavior(settings, directory)),
        traces["reference"],
        baseline=traces.get("baseline"),
        repeats=Repeats(traces.get("behavior-repeat"), traces.get("reference-repeat")),
        policy=settings.policy,
        confidence=settings.confidence,
        tail=settings.tail,
        command=command,
        started=started,
        on_rows=lambda rows: on_event({"event": "measured", "rows": rows}),
    )
    return gate.apply(report, settings.gate.fail_on) if settings.gate.fail_on else report


def audit_prompts(settings: AuditSettings) -> list[Prompt]:
    """The prompts of an audit: the file's, or the first of those shipped with the embedded models."""
    if settings.prompts is not None:
        return load_prompts(settings.prompts, settings.limit)
    return load_prompts(prompts_path(), settings.limit or DEFAULT_PROMPTS)


def plan_evidence(settings: AuditSettings, engines: Sequence[EngineSpec], *, prompts: int, traces: int) -> Evidence:
    """What will be recorded of each state: all engines must see it, and `traces` traces share the byte budget.

    The first engine is the one that samples, and so knows the vocabulary; where its sampler changes the
    distribution, the raw one is stored beside it.
    """
    sampling = settings.sampling
    traces += sampling.sampling().transforms
    states = StatesToRecord(
        tokens=prompts * sampling.samples * sampling.max_new_tokens,
        traces=traces,
        vocabulary=vocabulary_size(engines[0], resolve_model(settings.model)),
        visible=set.intersection(*(set(_capabilities(spec).evidence) for spec in engines)),
    )
    return choose_evidence(settings, states)


def plan(
    settings: AuditSettings, directory: Path, evidence: Evidence, specs: dict[str, EngineSpec]
) -> dict[str, list[Pass]]:
    """The traces of each side, in the order in which its engine makes them.

    A repeat forces the same tokens through the same path in another order, so that every batch has other members:
    what the same side would have answered in another run. A server cannot force tokens through decoding: it has no
    behaviour repeat, and as a baseline it scores through the path it has.
    """
    sampler = settings.sampling.sampling()
    # "support" renormalises π on what μ really kept, which is the processed policy's support.
    recorded: Policy = "raw" if settings.policy == "raw" and sampler.transforms else "processed"
    first = Pass(directory / "behavior", "behavior", evidence, "processed", sampler, needs_raw=recorded == "raw")
    source = measured_behavior(settings, directory)
    second = Pass(
        directory / "reference",
        "reference",
        evidence,
        recorded,
        scoring(sampler, "reference", settings.reference_temperature),
        source=source,
    )
    passes = {"behavior": [first], "reference": [second]}
    if settings.baseline is not None:
        # The same tokens, forced through the path that sampling takes: versions draw other tokens from one seed.
        path = "decode" if _decodes(specs["baseline"]) else "prefill"
        old = replace(first, trace=directory / "baseline", policy=recorded, source=source, path=path)
        passes["baseline"] = [old]
    if settings.repeats:
        repeated = [(second, "prefill")] + ([(first, "decode")] if _decodes(specs["behavior"]) else [])
        for one, path in repeated:
            again = replace(
                one,
                trace=directory / f"{one.role}-repeat",
                policy=recorded,
                source=first.trace if one is first else source,
                path=path,
                composition=BatchComposition(shuffle_seed=REPEAT_SHUFFLE_SEED),
            )
            passes[one.role].append(again)
    return passes


def _capabilities(spec: EngineSpec) -> Capabilities:
    return engine_class(spec.name, served=spec.served).capabilities


def _decodes(spec: EngineSpec) -> bool:
    return "decode" in _capabilities(spec).paths


def measured_behavior(settings: AuditSettings, directory: Path) -> Path:
    """The behaviour trace that is compared; a transforming sampler leaves its raw policy in a trace beside it."""
    apart = settings.policy == "raw" and settings.sampling.sampling().transforms
    return directory / ("behavior-raw" if apart else "behavior")


def _claim(directory: Path, settings: AuditSettings, *, resume: bool) -> None:
    """Note down what was asked for; a resumed run must ask for the same."""
    file = directory / "run.json"
    wanted = settings.model_dump(mode="json", exclude={"gate"})
    if resume and file.exists():
        found = json.loads(file.read_bytes())
        changed = [key for key in wanted if wanted[key] != found.get(key)]
        if changed:
            raise OutputExistsError(
                f"{directory} holds an audit with other settings ({', '.join(changed)}).",
                hint="give the same options, or another -o",
            )
    write_atomic(file, json.dumps(wanted, indent=1).encode())
