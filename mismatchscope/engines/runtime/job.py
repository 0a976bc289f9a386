"""A job: one model in one engine, and the tasks it is loaded for; and what of them is on disk already.

A task's directory of parts also holds `task.json`, everything that decides what the parts contain, and
`facts.json`, the engine's account of itself. Only a run that would make the same parts may go on in the same
directory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import EmptyComparisonError, MisalignedError, OutputExistsError
from ...records import Request, SequenceRecord, Task, finished_parts, read_part, read_requests, write_atomic

FROM_TASK = "task:"
"""`Task.requests` = "task:NAME": the sequences that the earlier task NAME of the same job finished."""


@dataclass(frozen=True)
class Job:
    """What a worker is asked to do. `version`, where given, is the engine version it must turn out to be."""

    engine: str  # "module:Class"
    model: str
    options: dict[str, Any]
    tasks: Sequence[Task]
    version: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"tasks": [task.to_json() for task in self.tasks]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Job:
        return cls(**data | {"tasks": [Task.from_json(task) for task in data["tasks"]]})

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
        requests = [request_to_score(record, task) for record in records]
    if not requests:
        raise EmptyComparisonError(f"The task {task.name} has no sequences.", hint="check the prompts")
    if len({request.sequence_id for request in requests}) < len(requests):
        raise MisalignedError(f"The task {task.name} has the same sequence id twice.")
    return requests


def request_to_score(record: SequenceRecord, task: Task) -> Request:
    """Ask for the log-probs of a finished sequence, with top-k evidence at the ids that were observed of it.

    μ's k-th log-prob bounds every id that was not observed. Where a truncated policy has fewer than k ids, what
    was not observed has no mass at all: -inf.
    """
    observed = record.raw if task.policy == "raw" and record.raw is not None else record.observed
    request = Request(
        sequence_id=record.sequence_id,
        prompt_id=record.prompt_id,
        prompt_token_ids=record.prompt_token_ids,
        response_token_ids=record.response_token_ids,
        finish_reason=record.finish_reason,
    )
    if task.evidence.level != "topk" or observed.topk_ids_TK is None:
        return request
    last = min(task.evidence.k, observed.topk_ids_TK.shape[1]) - 1
    kth_logprob_T = np.where(observed.topk_ids_TK[:, last] >= 0, observed.topk_logprobs_TK[:, last], -np.inf)
    return replace(request, observed_ids_TK=observed.topk_ids_TK, kth_logprob_T=kth_logprob_T)


def finished_facts(job: Job, task: Task) -> dict[str, Any] | None:
    """The facts under which every sequence of this task was finished; None while one is missing.

    Raises `OutputExistsError` when what is on disk came from another engine, setting, model or set of requests.
    """
    parts = Path(task.parts)
    if not (parts / "facts.json").exists():
        return None
    _refuse_other(parts, _identity(job, task), _read_json(parts / "task.json"))
    while (source := job.source_of(task)) is not None:
        task = source
    wanted = {request.sequence_id for request in read_requests(Path(task.requests))}
    return _read_json(parts / "facts.json") if wanted <= finished_parts(parts).keys() else None


def claim_parts(job: Job, task: Task, facts: dict[str, Any]) -> Path:
    """Make the directory of a task's parts, or take up the one that an equal run left behind."""
    parts = Path(task.parts)
    parts.mkdir(parents=True, exist_ok=True)
    for unfinished in parts.glob(".*.tmp"):
        unfinished.unlink()
    identity = _identity(job, task)
    if (parts / "facts.json").exists():
        _refuse_other(parts, identity, _read_json(parts / "task.json"))
        _refuse_other(parts, _lasting(facts), _lasting(_read_json(parts / "facts.json")))
    else:
        write_atomic(parts / "task.json", _json(identity))
        write_atomic(parts / "facts.json", _json(facts))
    return parts


def _identity(job: Job, task: Task) -> dict[str, Any]:
    """Everything that decides the contents of a task's parts, except what only the engine knows (its facts)."""
    source = job.source_of(task)
    if source is not None:
        requests = _identity(job, source)["task"]
    else:
        requests = hashlib.sha256(Path(task.requests).read_bytes()).hexdigest()
    described = {key: value for key, value in task.to_json().items() if key != "parts"} | {"requests": requests}
    return {
        "engine": job.engine,
        "version": job.version,
        "model": job.model,
        "options": job.options,
        "task": described,
    }


def _lasting(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts that must not change between two runs that share a directory."""
    return {key: facts.get(key) for key in ("engine", "engine_version", "model", "tokenizer_sha256")}


def _refuse_other(parts: Path, wanted: dict[str, Any], found: dict[str, Any]) -> None:
    differences = _differences(json.loads(_json(wanted)), found)
    if differences:
        raise OutputExistsError(
            f"The sequences in {parts} were made otherwise ({'; '.join(differences)}), so this run cannot go on.",
            hint="ask for the same again, or choose another -o DIR",
        )


def _differences(wanted: Any, found: Any, key: str = "") -> list[str]:
    if isinstance(wanted, dict) and isinstance(found, dict):
        return [
            difference
            for name in sorted(wanted.keys() | found.keys())
            for difference in _differences(wanted.get(name), found.get(name), f"{key}.{name}".lstrip("."))
        ]
    return [] if wanted == found else [f"{key} was {found}, is {wanted}"]


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True).encode()


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_bytes())
