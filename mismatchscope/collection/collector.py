"""From prompts and an engine to a trace on disk: what `rollout`, `score` and `audit` have in common.

One engine start makes several traces: a rollout and its repeat, or a scoring pass and its repeat. Traces that an
earlier, interrupted run completed are kept; sequences that it finished are not made again.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..composition import BatchComposition
from ..demo import model_path
from ..engines.registry import engine_class
from ..engines.runtime.launcher import JobResult, job_for, run_job
from ..engines.spec import EngineSpec, resolve_options
from ..environments import interpreter
from ..errors import CapabilityError, OutputExistsError
from ..prompts import Prompt
from ..records import Evidence, Policy, Request, Role, Sampling, Task, write_requests
from ..traces.reader import Trace
from ..traces.schema import FACTS, PARTS, Manifest
from ..traces.store import create, finish, read_manifest

EMBEDDED = "demo:"
Events = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Pass:
    """One trace to make. `source` is the trace whose tokens a score forces; None is a rollout of `prompts`.

    `sampling` is what a rollout draws with, and what a scored "processed" policy is seen through (see `scoring`).
    `needs_raw`: a rollout is of no use without the raw policy, which is recorded beside the processed one.
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

    @property
    def complete(self) -> bool:
        return _is_complete(self.trace)


def resolve_model(model: str) -> str:
    """`demo:dense` as the directory of the embedded model; anything else is a path or hub id and stays."""
    return str(model_path(model.removeprefix(EMBEDDED))) if model.startswith(EMBEDDED) else model


def vocabulary_size(spec: EngineSpec, model: str) -> int | None:
    """What the engine or the model's config.json says before anything is loaded; None where neither does."""
    declared = getattr(resolve_options(spec), "vocabulary", None)
    if declared is not None:
        return int(declared)
    try:
        config = json.loads((Path(model) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return config.get("vocab_size") or config.get("text_config", {}).get("vocab_size")


def check_capabilities(spec: EngineSpec, *, evidence: Evidence, path: str | None, rollout: bool) -> None:
    """Raise `CapabilityError` when the engine cannot see or do what is about to be asked of it."""
    able = engine_class(spec.name, served=spec.served).capabilities
    if rollout and not able.rollout:
        raise CapabilityError(f"The engine {spec.name} cannot sample.", hint="use it with --reference, or score")
    if evidence.level not in able.evidence:
        raise CapabilityError(
            f"The engine {spec.name} cannot see {evidence.level} evidence.",
            hint=f"--evidence {' or '.join(able.evidence)}",
        )
    if path is not None and path not in able.paths:
        raise CapabilityError(
            f"The engine {spec.name} cannot score through the {path} path.", hint=f"it has {', '.join(able.paths)}"
        )


def prepare_output(directory: Path, *, force: bool, resume: bool, inputs: Sequence[Path | None] = ()) -> Path:
    """The directory a run may write to. Raises `OutputExistsError` for one that is taken.

    `inputs` is what the run reads: a directory that holds any of it is not replaced.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())) and not resume:
        if not force:
            raise OutputExistsError(
                f"{directory} exists and is not empty.", hint="choose another -o, or add --force or --resume"
            )
        if not directory.is_dir() or not _is_ours(directory):
            raise OutputExistsError(
                f"{directory} holds files that no run of mismatchscope wrote, so --force will not replace it.",
                hint="choose another -o, or remove it yourself",
            )
        for path in inputs:
            if path is not None and path.exists() and path.resolve().is_relative_to(directory.resolve()):
                raise OutputExistsError(
                    f"{directory} holds {path}, which this run reads, so --force will not replace it.",
                    hint="choose another -o",
                )
        shutil.rmtree(directory)
    directory.mkdir(parents=True, exist_ok=True)
    return directory


_OURS = {
    "manifest.json": {"schema_version", "engine", "policy"},
    "run.json": {"behavior", "reference"},
    "report.json": {"schema_version", "alpha1"},
}


def _is_ours(directory: Path) -> bool:
    """Whether a run wrote this: others have files of these names too."""
    for name, keys in _OURS.items():
        try:
            content = json.loads((directory / name).read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and keys <= content.keys():
            return True
    return False


def scoring(sampler: Sampling, role: Role, temperature: float | None) -> Sampling:
    """The transforms between logits and the policy of a scored trace.

    The behaviour side repeats all that its sampler does. A trainer divides its logits by `temperature` (default:
    the sampler's; 1 for greedy decoding, which has none to divide by) and cuts nothing off.
    """
    if role == "behavior":
        return sampler if temperature is None else replace(sampler, temperature=temperature)
    return replace(sampler, temperature=temperature or sampler.temperature or 1.0, top_p=1.0, top_k=0)


def rollout_requests(prompts: Sequence[Prompt], samples: int) -> list[Request]:
    """`samples` requests a prompt; the samples of one prompt have neighbouring sequence ids."""
    return [
        Request(
            sequence_id=prompt.prompt_id * samples + sample,
            prompt_id=prompt.prompt_id,
            prompt=prompt.prompt,
            prompt_token_ids=None if prompt.token_ids is None else np.array(prompt.token_ids, dtype=np.int32),
        )
        for prompt in prompts
        for sample in range(samples)
    ]


def collect(
    spec: EngineSpec,
    model: str,
    passes: Sequence[Pass],
    *,
    prompts: Sequence[Prompt] = (),
    samples: int = 1,
    log_path: Path,
    on_event: Events,
) -> JobResult | None:
    """Make the traces of `passes` in one start of the engine; None where all of them were complete already.

    A pass whose source is an earlier pass of the same call takes its tokens without a second start. Raises what
    `run_job` and the trace store raise; what was finished stays on disk.
    """
    missing = [one for one in passes if not one.complete]
    if not missing:
        return None
    names = {one.trace: one.trace.name for one in missing}
    with tempfile.TemporaryDirectory(prefix="mismatchscope-") as scratch:
        tasks = []
        for one in missing:
            if one.source in names:
                requests = f"task:{names[one.source]}"
            else:
                requests = str(Path(scratch, f"{one.trace.name}.safetensors"))
                source = rollout_requests(prompts, samples) if one.source is None else _score_requests(one)
                write_requests(Path(requests), source)
            tasks.append(_task(one, requests))
        job = job_for(spec, resolve_model(model), tasks)
        settings = {key: value for key, value in asdict(resolve_options(spec)).items() if value is not None}
        for one in missing:
            create(one.trace, _manifest(one, spec, settings, {}, prompts))

        def record(event: dict[str, Any]) -> None:
            if event["event"] == "ready":
                for one in missing:
                    create(one.trace, _manifest(one, spec, settings, event["facts"], prompts))
            on_event(event)

        result = run_job(job, python=interpreter(spec), log_path=log_path, on_event=record)
        # A resumed run finds a trace complete only when those that take their tokens from it are complete too.
        for one in reversed(missing):
            create(one.trace, _manifest(one, spec, settings, result.facts, prompts))
            finish(one.trace)
    return result


def _score_requests(one: Pass) -> list[Request]:
    return list(Trace.open(one.source).requests())


def _task(one: Pass, requests: str) -> Task:
    return Task(
        name=one.trace.name,
        kind="rollout" if one.source is None else "score",
        requests=requests,
        parts=str(one.trace / PARTS),
        evidence=one.evidence,
        policy="raw" if one.needs_raw else one.policy,
        sampling=one.sampling,
        path=one.path,
        composition=one.composition,
    )


def _manifest(
    one: Pass, spec: EngineSpec, settings: dict[str, Any], facts: dict[str, Any], prompts: Sequence[Prompt]
) -> Manifest:
    known = {key: facts[key] for key in FACTS if facts.get(key) is not None}
    if "effective" in known:  # the engine's defaults, and over them what this pass asked for
        known["effective"] = known["effective"] | one.composition.settings()
    parent = Trace.open(one.source, verify=False) if one.source is not None and _is_complete(one.source) else None
    return Manifest(
        engine=spec.name,
        role=one.role,
        policy=one.policy,
        path="rollout" if one.source is None else one.path,
        evidence=one.evidence,
        sampling=one.sampling,
        temperature=1.0 if one.policy == "raw" else one.sampling.temperature,
        seeds={"sampling": one.sampling.seed, "evidence": one.evidence.seed}
        | ({} if one.composition.shuffle_seed is None else {"shuffle": one.composition.shuffle_seed}),
        settings=settings,
        parent=None if parent is None else parent.sha256,
        prompts_sha256=_prompts_sha256(prompts) if prompts else parent and parent.manifest.prompts_sha256,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **known,
    )


def _is_complete(path: Path) -> bool:
    return (path / "manifest.json").exists() and read_manifest(path).complete


def _prompts_sha256(prompts: Sequence[Prompt]) -> str:
    content = [[prompt.prompt_id, prompt.prompt, prompt.token_ids] for prompt in prompts]
    return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()
