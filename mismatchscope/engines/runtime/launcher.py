"""The parent's side of a worker: start it in its interpreter, pass its events on, and say why it ended."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from ... import errors
from ...errors import (
    EngineError,
    MismatchScopeError,
    MissingDependencyError,
    PromptsError,
    SpecError,
    WorkerError,
)
from ...file_errors import file_errors
from ...processes import FollowedProcess, open_log
from ...records import Task
from ...temporary import temporary_directory
from ..common.rendering_limits import KILLED_BY, OTHER_TEMPLATE
from ..registry import engine_path
from ..spec import EngineSpec, resolve_options
from .job import Job
from .worker import GRACE_SECONDS

LOG_TAIL_LINES = 20
POLL_SECONDS = 0.5
WAITING_SECONDS = 10.0
"""After so long without an event, and again each time, a `waiting` event shows that the parent is alive."""

_TORCH_EXTRA = ("torch", "transformers", "accelerate")


@dataclass
class JobResult:
    """`seconds` and `tokens` by task, of this run alone."""

    facts: dict[str, Any]
    seconds: dict[str, float] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    load_seconds: float | None = None


def job_for(spec: EngineSpec, model: str, tasks: Sequence[Task]) -> Job:
    """The job that a SPEC stands for. Raises `SpecError`."""
    engine = engine_path(spec.name, served=spec.served)
    return Job(engine, model, asdict(resolve_options(spec)), list(tasks), spec.version)


@file_errors(
    "The engine's worker cannot be started", hint="check the directory of its log, and TMPDIR", kind=EngineError
)
def run_job(
    job: Job, *, python: str | None = None, log_path: Path, on_event: Callable[[dict[str, Any]], None]
) -> JobResult:
    """Do a job in a worker; what an earlier run of it finished is left alone.

    `python` is the engine's interpreter, None for this one. `on_event` gets every event of `worker` and, while it
    is silent, {"event": "waiting", "seconds"}. An engine that compiles is silent for minutes: it is never killed
    for that. No sequence is made before `on_event` has returned from `ready`; an exception that it raises there
    keeps this engine away from the sequences of another. The log at `log_path` is added to.

    Raises `WorkerError` when the process died, else the error of `errors` that ended it, `MissingDependencyError`
    among them. Whatever ends this call, an interrupt too, ends the worker and its children first.
    """
    with temporary_directory() as stage, open_log(log_path) as log:
        stage_packages(stage, job)
        log_start = log.tell()
        with start_worker(python, write_job(stage, job), log) as process:
            return finished(process, job, python, log_path, log_start, on_event)


def finished(
    process: FollowedProcess,
    job: Job,
    python: str | None,
    log_path: Path,
    log_start: int,
    on_event: Callable[[dict[str, Any]], None],
) -> JobResult:
    """Follow the job that a worker has been given to its end. Raises what `run_job` does, once the worker and its
    children have ended."""
    result, last = _follow(process, on_event)
    if last is None or last["event"] == "error":
        process.end()  # it may be there still, its output closed, and what it started may write to the log
    # Once it was ready it has seen prompts, which the log may repeat: nothing of that is shown.
    tail = _tail(log_path, log_start) if result.load_seconds is None else ""
    if last is None:
        raise _death(process.returncode, job, log_path, tail)
    if last["event"] == "error":
        raise _as_exception(last, job, python, log_path, tail)
    return result


def write_job(stage: Path, job: Job) -> Path:
    """The file that a worker reads."""
    path = stage / "job.json"
    path.write_text(json.dumps(job.to_json()), encoding="utf-8")
    return path


def stage_packages(stage: Path, job: Job) -> None:
    """Links to this package and the engine's own, alone in a directory that is safe to put on another's path.

    Their real parent may be a site-packages directory, whose other packages would shadow the worker's.
    """
    for name in {__name__.partition(".")[0], job.engine.partition(".")[0].partition(":")[0]}:
        found = importlib.util.find_spec(name)
        places = [] if found is None else [*(found.submodule_search_locations or ()), found.origin]
        if not places or places[0] is None:
            raise SpecError(f"The engine {job.engine} cannot be imported: there is no package {name}.")
        source = Path(places[0])
        (stage / source.name).symlink_to(source)


def start_worker(python: str | None, job_path: Path, log: BinaryIO, *arguments: str) -> FollowedProcess:
    """The process that does a job. Raises `SpecError` for an interpreter that cannot be started."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, (str(job_path.parent), os.environ.get("PYTHONPATH")))),
        "PYTHONSAFEPATH": "1",  # nothing in the current directory may stand in for a module
        "PYTHONUNBUFFERED": "1",
    }
    if python is not None:
        # Engines call tools of their own environment (ninja, ptxas), as if it were activated.
        environment["PATH"] = os.pathsep.join((str(Path(python).parent), os.environ.get("PATH", "")))
    try:
        return FollowedProcess(
            [python or sys.executable, "-m", "mismatchscope.engines.runtime.worker", str(job_path), *arguments],
            environment=environment,
            stderr=log,
            keep_stdin=True,  # the worker goes when it ends
            grace_seconds=GRACE_SECONDS,
        )
    except OSError as error:
        raise SpecError(
            f"The interpreter {python} cannot be started: {error.strerror}.", hint="mismatchscope env list"
        ) from None


def _follow(
    process: FollowedProcess, on_event: Callable[[dict[str, Any]], None]
) -> tuple[JobResult, dict[str, Any] | None]:
    """Pass events on until they end: the result as far as it came, and the event that ended it, None at a death."""
    result = JobResult(facts={})
    for event in _events(process):
        on_event(event)
        match event["event"]:
            case "ready":
                result.facts, result.load_seconds = event["facts"], event["seconds"]
                process.write(b"\n")  # on_event has returned: the worker may begin
            case "task_done":
                result.seconds[event["task"]] = event["seconds"]
                result.tokens[event["task"]] = event["tokens"]
            case "error" | "done":
                return result, event
    return result, None


def _events(process: FollowedProcess) -> Iterator[dict[str, Any]]:
    """The worker's events, one a line, and a sign of life of ours now and then while it has none."""
    pending = b""
    silent_since = shown = time.monotonic()
    for chunk in process.output(POLL_SECONDS):
        if chunk:
            *lines, pending = (pending + chunk).split(b"\n")
            yield from map(json.loads, lines)
            silent_since = shown = time.monotonic()
        elif time.monotonic() - shown >= WAITING_SECONDS:
            shown = time.monotonic()
            yield {"event": "waiting", "seconds": shown - silent_since}


def _as_exception(
    event: dict[str, Any], job: Job, python: str | None, log_path: Path, tail: str
) -> MismatchScopeError:
    """The worker's error event as the exception of that name."""
    engine = job.engine.partition(":")[2]
    if event["type"] == "ModuleNotFoundError":
        package = event["package"]
        if python is None and package == "peft":
            return MissingDependencyError(package, "adapters", "A PEFT adapter on the engine transformers")
        if python is None and package in _TORCH_EXTRA:
            return MissingDependencyError(package, "torch", f"The engine {engine}")
        interpreter = python or sys.executable
        return EngineError(
            f"The engine {engine} needs the package {package}, which {interpreter} does not have.",
            hint=f"{interpreter} -m pip install {package}",
        )
    kind = getattr(errors, event["type"], EngineError)
    # Not through the constructor: subclasses have their own, and the message is made already.
    error = kind.__new__(kind)
    where = f"the log is {log_path}"
    hint = f"{event['hint']}; {where}" if event["hint"] and event["log"] else event["hint"] or where
    MismatchScopeError.__init__(error, event["message"], hint, tail if event["log"] else "", str(log_path))
    return error


def _death(returncode: int, job: Job, log_path: Path, tail: str) -> MismatchScopeError:
    if returncode == -KILLED_BY:
        return PromptsError("The chat template of this model does not end.", hint=OTHER_TEMPLATE)
    if returncode == -signal.SIGKILL:
        reason = "was killed (SIGKILL), often by the kernel for want of memory"
    elif returncode < 0:
        reason = f"was killed by {signal.Signals(-returncode).name}"
    else:
        reason = f"ended with exit status {returncode} before its work did"
    return WorkerError(
        f"The worker of {job.engine.partition(':')[2]} {reason}.",
        hint=f"the log is {log_path}; the same command with --resume goes on from the last finished sequence",
        log_tail=tail,
        log_path=str(log_path),
    )


def _tail(log_path: Path, log_start: int) -> str:
    """The last lines that this run added to the log."""
    with open(log_path, "rb") as log:
        log.seek(max(log_start, log_path.stat().st_size - 65536))
        return "\n".join(log.read().decode(errors="replace").splitlines()[-LOG_TAIL_LINES:])
