"""An engine on many GPUs: one worker a Ray actor, which share the batches of a task.

Which sequences share a batch is decided as in one process, so the trace is the same. Every node must see the
trace's directory, the model and the engine's interpreter under the same paths.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..engines.runtime.job import Job
from ..engines.runtime.launcher import run_job
from ..errors import EngineError, UsageError
from ..ray_connection import ray_cluster
from ..temporary import temporary_directory

Events = Callable[[dict[str, Any]], None]
_RETRIES = 3
_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class RayWorkers:
    """Runs jobs on the cluster at an address, by default with one worker a GPU, or a node where it has none."""

    address: str
    workers: int | None = None

    def __call__(self, job: Job, *, python: str | None = None, log_path: Path, on_event: Events) -> None:
        """As `run_job`, for a job of one task. A worker whose node is lost is started again elsewhere and goes on
        from what it had finished.

        Raises what `run_job` and `ray_cluster` raise, and `EngineError` where two workers are not the same engine.
        """
        (task,) = job.tasks
        requests = Path(task.requests).read_bytes()
        with ray_cluster(self.address, "Running an engine on a cluster") as ray:
            gpus = int(ray.cluster_resources().get("GPU", 0))
            count = self.workers or gpus or len(ray.nodes())
            resources = {"num_gpus": 1} if gpus else {"num_cpus": 1}
            actor_class = ray.remote(max_concurrency=3, **resources)(EngineActor)
            shares = [
                _Share(
                    actor_class, replace(job, share=(number, count)), requests, python, _log_of(log_path, number)
                )
                for number in range(count)
            ]
            _follow(ray, shares, on_event)


def job_runner(address: str | None, workers: int | None) -> Callable[..., Any]:
    """What does an engine's jobs: this machine, or the cluster at an address.

    Raises `UsageError` for a number of workers without a cluster.
    """
    if address is None and workers is not None:
        raise UsageError("--ray-workers is of a cluster, and none is given.", hint="--ray ADDRESS, or --ray local")
    return run_job if address is None else RayWorkers(address, workers)


def _log_of(log_path: Path, number: int) -> Path:
    return log_path.with_name(f"{log_path.stem}-{number}{log_path.suffix}")


class EngineActor:
    """One worker of an engine, in an actor: its events wait here until the driver asks for them."""

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._accepted = threading.Event()

    def start(self, job: Job, requests: bytes, python: str | None, log_path: Path) -> None:
        """Begin with a job; `requests` is the content of its task's file of requests."""
        threading.Thread(target=self._run, args=(job, requests, python, log_path), daemon=True).start()

    def accept(self) -> None:
        """What this worker says of itself was looked at: it may make sequences."""
        self._accepted.set()

    def events(self) -> list[dict[str, Any]]:
        """Those since the last call; none comes after "finished" and "failed"."""
        found = []
        try:
            found.append(self._events.get(timeout=_POLL_SECONDS))
            while True:
                found.append(self._events.get_nowait())
        except queue.Empty:
            return found

    def _run(self, job: Job, requests: bytes, python: str | None, log_path: Path) -> None:
        try:
            with temporary_directory() as scratch:
                (scratch / "requests.safetensors").write_bytes(requests)
                task = replace(job.tasks[0], requests=str(scratch / "requests.safetensors"))
                run_job(replace(job, tasks=[task]), python=python, log_path=log_path, on_event=self._pass_on)
            self._events.put({"event": "finished"})
        except BaseException as error:  # whatever it is, the driver raises it
            self._events.put({"event": "failed", "error": error})

    def _pass_on(self, event: dict[str, Any]) -> None:
        self._events.put(event)
        if event["event"] == "ready":
            self._accepted.wait()


@dataclass
class _Share:
    """What one worker does, and how far it has come."""

    actor_class: Any
    job: Job
    requests: bytes
    python: str | None
    log_path: Path
    losses: int = 0
    progress: dict[str, int] = field(default_factory=dict)
    actor: Any = None

    def start(self) -> Any:
        """The first answer to come."""
        self.actor = self.actor_class.remote()
        self.actor.start.remote(self.job, self.requests, self.python, self.log_path)
        return self.actor.events.remote()


def _follow(ray: Any, shares: list[_Share], on_event: Events) -> None:
    from ray.exceptions import RayActorError

    waiting = {share.start(): share for share in shares}
    facts: dict[str, Any] | None = None
    while waiting:
        done, _ = ray.wait(list(waiting), num_returns=1)
        share = waiting.pop(done[0])
        try:
            events = ray.get(done[0])
        except RayActorError as error:
            share.losses += 1
            if share.losses > _RETRIES:
                raise EngineError(
                    f"The Ray cluster lost a worker {share.losses} times: {type(error).__name__}.",
                    hint=f"its log is {share.log_path}; the same command with --resume goes on",
                ) from error
            waiting[share.start()] = share
            continue
        ended = False
        for event in events:
            match event["event"]:
                case "ready":
                    facts = _checked(facts, event["facts"])
                    on_event(event)
                    share.actor.accept.remote()
                case "task" | "sequence":
                    share.progress = {
                        "done": event["done"],
                        "total": event.get("total", event.get("sequences_total")),
                    }
                    on_event(event | _summed(shares))
                case "failed":
                    raise event["error"]
                case "finished":
                    ended = True
                case _:
                    on_event(event)
        if not ended:
            waiting[share.actor.events.remote()] = share


def _checked(first: dict[str, Any] | None, facts: dict[str, Any]) -> dict[str, Any]:
    """The facts of the first worker; raises `EngineError` for another engine than that one's."""
    if first is None or first == facts:
        return facts
    keys = sorted(key for key in first.keys() | facts.keys() if first.get(key) != facts.get(key))
    raise EngineError(
        f"Two workers of the cluster are not the same engine: they differ in {', '.join(keys)}.",
        hint="use nodes of one kind, with the same packages",
    )


def _summed(shares: list[_Share]) -> dict[str, int]:
    """How far all workers have come together."""
    done, total = (sum(share.progress.get(name, 0) for share in shares) for name in ("done", "total"))
    return {"done": done, "total": total, "sequences_total": total}
