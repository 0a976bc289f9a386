"""From prompts and an engine to traces on disk: what `rollout`, `score` and every probe have in common.

One engine start makes several traces: a rollout and its repeat, or a scoring pass and its repeat. Traces that an
earlier, interrupted run completed are kept; sequences that it finished are not made again. Both only where they
were made from the same content: prompts, weights, settings, packages.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..engines.common.stage_files import finished_internals
from ..engines.runtime.batching import within
from ..engines.runtime.job import FROM_TASK
from ..engines.runtime.launcher import run_job
from ..engines.spec import EngineSpec, resolve_options
from ..environments import interpreter
from ..errors import EngineError, OutputExistsError
from ..file_errors import file_errors
from ..prompts.rows import Prompt
from ..records import Evidence, Task, finished_parts, write_requests
from ..temporary import temporary_directory
from ..traces.identity import FACTS, earlier_manifest, request_sha256
from ..traces.reader import Trace
from ..traces.schema import PARTS, Manifest, RunInputs
from ..traces.store import beside_path_of, create, finish, is_complete, raw_path_of
from ..traces.unfinished import remove_parts, remove_unusable, usable_manifest
from .content import RunContent
from .embedded import resolve_model
from .passes import Inside, Pass
from .remade import note_remade
from .side_by_side import beside_of, job_of
from .worker_tasks import rollout_requests, task_of, task_of_inside

_within_file_errors = file_errors(
    "The run cannot go on", hint="the same command with --resume goes on from what was finished"
)

Events = Callable[[dict[str, Any]], None]
RunJob = Callable[..., Any]
"""`run_job`, or what stands in for it."""


@dataclass
class Collector:
    """Makes the traces of one command: `samples` responses to each of the `prompts`, and scores of their tokens.

    `traces` has by its path every trace that this command has opened or made. One was checked against its sha256
    when it was opened, the other was hashed when this process wrote it; neither is read for that again. `run` does
    the engine's jobs.
    """

    model: str
    prompts: Sequence[Prompt] = ()
    samples: int = 1
    traces: dict[Path, Trace] = field(default_factory=dict)
    run: RunJob = run_job

    def __post_init__(self) -> None:
        self._content = RunContent(resolve_model(self.model))

    def trace(self, path: Path) -> Trace:
        """A complete trace. Raises `TraceError`."""
        if path not in self.traces:
            self.traces[path] = Trace.open(path)
        return self.traces[path]

    def request_keys(self, spec: EngineSpec, passes: Sequence[Pass]) -> dict[Pass, str]:
        """Names what each pass asks for, by its content: prompts, weights, settings, packages, the tokens' source.

        A pass that takes its tokens from an earlier one of `passes` is named by what that one asks for, so that the
        name is the same whether or not that trace is there already.
        """
        manifests: dict[Pass, Manifest] = {}
        for pass_ in passes:
            source = next((manifests[other] for other in manifests if other.trace == pass_.source), None)
            manifests[pass_] = self._manifest(spec, pass_, source)
        return {pass_: request_sha256(manifest) for pass_, manifest in manifests.items()}

    @_within_file_errors
    def check(self, spec: EngineSpec, passes: Sequence[Pass]) -> dict[Pass, Manifest]:
        """The manifests that the traces of `passes` will have, less what only the engine can say.

        Starts and writes nothing. Raises `OutputExistsError` where another run has begun one of these traces, or
        the same one from other content, and `TraceError` for a complete one that is not what its manifest says.
        """
        manifests: dict[Pass, Manifest] = {}
        for pass_ in passes:
            source = next((manifests[other] for other in manifests if other.trace == pass_.source), None)
            manifest = self._manifest(spec, pass_, source)
            if source is None:
                _check_source(pass_)
            earlier = earlier_manifest(pass_.trace, manifest)
            if earlier is not None:
                manifest = manifest.model_copy(update={"model": self._content.model_facts(spec, earlier)})
                earlier_manifest(pass_.trace, manifest)
                if earlier.complete:
                    self.trace(pass_.trace)
            manifests[pass_] = manifest
        return manifests

    @_within_file_errors
    def collect(
        self,
        spec: EngineSpec,
        passes: Sequence[Pass],
        *,
        inside: Sequence[Inside] = (),
        log_path: Path,
        on_event: Events,
    ) -> None:
        """Make the traces of `passes` in one start of the engine, or in none where no sequence is missing.

        A pass whose source is an earlier pass of the same call takes its tokens without a second start. What is
        `inside` is looked at once tokens are drawn: scores may go on from it. Raises what `run_job` and the trace
        store raise; what was finished stays on disk.
        """
        manifests = self.check(spec, passes)
        missing = {pass_.trace: pass_ for pass_ in passes if not is_complete(pass_.trace)}
        for pass_ in passes:
            if pass_.trace not in missing:
                remove_parts(pass_.trace)  # a run that was killed when all was done but this
        runs = {path: request_sha256(manifests[pass_]) for path, pass_ in missing.items()}
        for path, pass_ in missing.items():
            for why in self._remove_unusable(pass_, missing, runs[path]):
                note_remade(why, log_path, on_event)

        def begin(event: dict[str, Any]) -> None:
            if event["event"] == "ready":  # no sequence is made before this returns
                for path, pass_ in missing.items():
                    if pass_.beside is not None:  # first: a trace that is begun has its other one
                        other, facts = self._manifest(*beside_of(pass_), None), event["facts"]["beside"]
                        create(beside_path_of(path), _with_facts(other, pass_, facts))
                    create(path, _with_facts(manifests[pass_], pass_, event["facts"]))
            on_event(event)

        unseen = [each for each in inside if not self._is_seen(each, missing)]
        if unseen or not all(self._is_finished(pass_, missing) for pass_ in missing.values()):
            with temporary_directory() as scratch:
                tasks = [self._task(pass_, missing, scratch, runs[path]) for path, pass_ in missing.items()]
                drawn = sum(pass_.source is None for pass_ in missing.values())
                tasks[drawn:drawn] = [self._look(each, missing, scratch) for each in unseen]
                job = job_of(spec, list(missing.values()), resolve_model(self.model), tasks)
                self.run(job, python=interpreter(spec), log_path=log_path, on_event=begin)
        # A resumed run finds a trace complete only when those that take their tokens from it are complete too.
        for path, pass_ in reversed(missing.items()):
            finish(path)
            self._remember(pass_)

    def _manifest(self, spec: EngineSpec, pass_: Pass, source: Manifest | None) -> Manifest:
        """`source` is the manifest of the trace whose tokens are scored, where the same start makes that too."""
        batches = {key: value for key, value in asdict(pass_.composition).items() if value is not None}
        seeds = {"sampling": pass_.sampling.seed, "evidence": pass_.evidence.seed}
        if "shuffle_seed" in batches:
            seeds["shuffle"] = batches.pop("shuffle_seed")
        parent = None
        if source is None and pass_.source is not None and is_complete(pass_.source):
            parent = self.trace(pass_.source)
        prompts_sha256 = _prompts_sha256(self.prompts) if self.prompts else None
        if prompts_sha256 is None and parent is not None:
            prompts_sha256 = parent.manifest.prompts_sha256
        return Manifest(
            engine=spec.name,
            role=pass_.role,
            policy=pass_.policy,
            path="rollout" if pass_.source is None else pass_.path,
            evidence=pass_.evidence,
            sampling=pass_.sampling,
            temperature=1.0 if pass_.policy == "raw" else pass_.sampling.temperature,
            seeds=seeds,
            settings={key: value for key, value in asdict(resolve_options(spec)).items() if value is not None},
            inputs=RunInputs(
                version=spec.version,
                packages=self._content.packages(spec),
                model=self.model,
                samples=self.samples if self.prompts else None,
                needs_raw=pass_.needs_raw,
                source=None if source is None else request_sha256(source),
                composition=batches or None,
                given=None
                if pass_.given is None
                else {"stages": list(pass_.given.stages), "name": pass_.given.name},
                beside=None if pass_.beside is None else request_sha256(self._manifest(*beside_of(pass_), source)),
            ),
            parent=None if parent is None else parent.sha256,
            prompts_sha256=prompts_sha256,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )

    def _task(self, pass_: Pass, missing: Mapping[Path, Pass], scratch: Path, run: str) -> Task:
        if pass_.source is None:
            requests = str(scratch / f"{pass_.trace.name}.safetensors")
            write_requests(Path(requests), rollout_requests(self.prompts, self.samples))
        else:
            requests = self._tokens(pass_.source, pass_.trace.name, pass_.evidence, missing, scratch)
        return task_of(pass_, requests, run)

    def _look(self, inside: Inside, missing: Mapping[Path, Pass], scratch: Path) -> Task:
        tokens = self._tokens(inside.source, inside.directory.name, Evidence("sampled"), missing, scratch)
        return task_of_inside(inside, tokens)

    def _tokens(
        self, source: Path, name: str, evidence: Evidence, missing: Mapping[Path, Pass], scratch: Path
    ) -> str:
        """The requests of a task: the tokens of a trace that the same job makes before, or of one that is there."""
        if source in missing:
            return f"{FROM_TASK}{source.name}"
        requests = scratch / f"{name}.safetensors"
        write_requests(requests, self.trace(source).requests(evidence))
        return str(requests)

    def _is_seen(self, inside: Inside, missing: Mapping[Path, Pass]) -> bool:
        """Whether the file of every sequence is on the disk; each is written as a whole."""
        if inside.source in missing:
            return False
        wanted = within(list(self.trace(inside.source).requests(Evidence("sampled"))), inside.extent)
        return {request.sequence_id for request in wanted} <= finished_internals(inside.directory).keys()

    def _remove_unusable(self, pass_: Pass, missing: Mapping[Path, Pass], run: str) -> list[str]:
        """Remove what an earlier run left of a trace and nobody can go on from; each with the reason.

        The passes come in the order in which they are made: tokens that are made again are scored again.
        """
        source = pass_.source
        if source is not None and source in missing:
            wanted = set(finished_parts(source / PARTS))
        else:
            wanted = self._sequence_ids(pass_, missing)
        removed = remove_unusable(pass_.trace, run, wanted)
        if source is None and pass_.sampling.transforms:
            removed += remove_unusable(raw_path_of(pass_.trace), run, wanted, unfinished=True)
        return removed

    def _is_finished(self, pass_: Pass, missing: Mapping[Path, Pass]) -> bool:
        """Whether every sequence of the trace is on the disk, though not packed."""
        return self._sequence_ids(pass_, missing) <= finished_parts(pass_.trace / PARTS).keys()

    def _sequence_ids(self, pass_: Pass, missing: Mapping[Path, Pass]) -> set[int]:
        first = pass_
        while first.source is not None and first.source in missing:
            first = missing[first.source]
        if first.source is None:
            return {request.sequence_id for request in rollout_requests(self.prompts, self.samples)}
        return {request.sequence_id for request in self.trace(first.source).requests(Evidence("sampled"))}

    def _remember(self, pass_: Pass) -> None:
        """The trace was hashed when it was packed, a moment ago; its raw view likewise."""
        self.traces[pass_.trace] = Trace.open(pass_.trace, verify=False)
        raw, beside = raw_path_of(pass_.trace), beside_path_of(pass_.trace)
        if pass_.source is None and pass_.sampling.transforms and is_complete(raw):
            self.traces[raw] = Trace.open(raw, verify=False)
        if pass_.beside is not None:
            self.traces[beside] = Trace.open(beside, verify=False)


def _check_source(pass_: Pass) -> None:
    """Raise `OutputExistsError` for a trace whose source has gone: what is sampled anew may be other tokens."""
    if pass_.source is None or is_complete(pass_.source):
        return
    earlier = usable_manifest(pass_.trace)
    if earlier is not None and earlier.parent is not None:
        raise OutputExistsError(
            f"{pass_.trace} has scores of the tokens of {pass_.source}, and those are not there any more.",
            hint=f"put {pass_.source} back, remove {pass_.trace} yourself, choose another -o, or add --force",
        )


def _with_facts(manifest: Manifest, pass_: Pass, facts: dict[str, Any]) -> Manifest:
    known = {key: facts[key] for key in FACTS if facts.get(key) is not None}
    if "effective" in known:  # the engine's defaults, and over them what this pass asked for
        known["effective"] = known["effective"] | pass_.composition.settings()
    try:
        return Manifest.model_validate(manifest.model_dump() | known | {"notes": facts.get("notes", [])})
    except ValidationError as error:
        first = error.errors()[0]
        raise EngineError(
            f"What the engine {manifest.engine} says of itself or its model cannot be: "
            f"{'.'.join(map(str, first['loc']))}: {first['msg']}.",
            hint="mend config.json of the model, or the engine's facts()",
        ) from None


def _prompts_sha256(prompts: Sequence[Prompt]) -> str:
    content = [
        [prompt.prompt_id, prompt.prompt, prompt.token_ids, *filter(None, [prompt.template_arguments])]
        for prompt in prompts
    ]
    return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()
