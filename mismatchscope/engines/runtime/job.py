"""A job: one model in one engine, and the tasks it is loaded for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...errors import EmptyComparisonError, MisalignedError
from ...records import Request, Task, finished_parts, read_part, read_requests, request_to_score

FROM_TASK = "task:"
"""`Task.requests` = "task:NAME": the sequences that the earlier task NAME of the same job finished."""

WEIGHTS = "tensors.json"
"""What a task of the kind "weights" writes: a list of `measures.tensor_results.TensorRecord`, and no tensor."""


@dataclass(frozen=True)
class Job:
    """What a worker is asked to do. `version`, where given, is the engine version it must turn out to be; `share`
    is the worker's number and how many workers share the batches of each task."""

    engine: str  # "module:Class"
    model: str
    options: dict[str, Any]
    tasks: Sequence[Task]
    version: str | None = None
    share: tuple[int, int] = (0, 1)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"tasks": [task.to_json() for task in self.tasks]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Job:
        made = {"tasks": [Task.from_json(task) for task in data["tasks"]], "share": tuple(data["share"])}
        return cls(**data | made)

    def source_of(self, task: Task) -> Task | None:
        """The earlier task whose sequences this one takes over; None where its requests are a file."""
        if not task.requests.startswith(FROM_TASK):
            return None
        name = task.requests.removeprefix(FROM_TASK)
        for earlier in self.tasks:
            if earlier is task:
                break
            if earlier.name == name:
                return earlier
        raise ValueError(f"task {task.name} takes its sequences from '{name}', which is no earlier task of the job")


def load_requests(job: Job, task: Task) -> list[Request]:
    """The sequences of a task. Raises `EmptyComparisonError` for none, `MisalignedError` for one listed twice."""
    source = job.source_of(task)
    if source is None:
        requests = read_requests(Path(task.requests))
    else:
        parts = finished_parts(Path(source.parts))
        records = (read_part(parts[request.sequence_id]) for request in load_requests(job, source))
        requests = [request_to_score(record, task.evidence, task.policy) for record in records]
    if not requests:
        raise EmptyComparisonError(f"The task {task.name} has no sequences.", hint="check the prompts")
    if len({request.sequence_id for request in requests}) < len(requests):
        raise MisalignedError(f"The task {task.name} has the same sequence id twice.")
    return requests


def open_parts(job: Job, task: Task) -> Path:
    """The directory of a task's parts, with those that an earlier run finished and without what it left half-made.

    Whether this run may go on from there was decided before its worker was let begin. What is half-made there may
    be another worker's, where several share the task.
    """
    parts = Path(task.parts)
    parts.mkdir(parents=True, exist_ok=True)
    for unfinished in parts.glob(".*.tmp") if job.share[1] == 1 else ():
        unfinished.unlink()
    return parts
