"""One task in a worker: hand the engine its batches and put every finished sequence on disk.

After a kill, a batch that lacks a sequence runs again as a whole, so that every sequence keeps the company that it
has in an undisturbed run; only what is missing is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from ...errors import CapabilityError, EngineError, MismatchScopeError
from ...records import Request, SequenceRecord, Task, finished_parts, write_part
from ..base import Engine
from .batching import plan_batches
from .job import Job, load_requests, open_parts

Emit = Callable[..., None]
"""emit(event, **fields): tell the parent."""


def check_capabilities(engine: type[Engine], task: Task) -> None:
    """Raise `CapabilityError` when an engine cannot do a task, before anything slow happens."""
    able = engine.capabilities
    if task.evidence.level not in able.evidence:
        raise CapabilityError(
            f"The engine {engine.name} cannot see {task.evidence.level} evidence.",
            hint=f"--evidence {' or '.join(able.evidence)}",
        )
    if task.kind == "rollout" and not able.rollout:
        raise CapabilityError(
            f"The engine {engine.name} scores given tokens, it does not sample.", hint="choose another --behavior"
        )
    if task.kind == "score" and task.path not in able.paths:
        paths = " and ".join(able.paths) or "no path"
        raise CapabilityError(f"The engine {engine.name} cannot score by {task.path}; it knows {paths}.")


def run_task(engine: Engine, job: Job, task: Task, emit: Emit) -> None:
    """Finish a task and say so, sequence by sequence."""
    parts = open_parts(task)
    requests = load_requests(job, task)
    finished = finished_parts(parts).keys()
    done, tokens, began = len(finished), 0, time.monotonic()
    emit("task", name=task.name, sequences_total=len(requests), done=done)
    engine.check(requests, task)
    for index, batch in enumerate(plan_batches(requests, engine.batch_size, task.shuffle_seed, engine.order)):
        if all(request.sequence_id in finished for request in batch):
            continue
        for record in _run_batch(engine, batch, task):
            if record.sequence_id in finished:
                continue
            record.batch = index
            write_part(parts, record)
            done, tokens = done + 1, tokens + len(record.response_token_ids)
            emit(
                "sequence",
                task=task.name,
                sequence_id=record.sequence_id,
                tokens=len(record.response_token_ids),
                done=done,
                total=len(requests),
            )
    emit("task_done", task=task.name, seconds=time.monotonic() - began, tokens=tokens)


def _run_batch(engine: Engine, batch: Sequence[Request], task: Task) -> Iterator[SequenceRecord]:
    """The engine's answers to a batch, each checked against its request; none may be missing."""
    open_requests = {request.sequence_id: request for request in batch}
    try:
        for record in engine.rollout(batch, task) if task.kind == "rollout" else engine.score(batch, task):
            _check(engine, record, open_requests.pop(record.sequence_id, None))
            yield record
    except (MismatchScopeError, ImportError, OSError):
        raise
    except Exception as error:
        raise EngineError(_without_prompts(f"{type(error).__name__}: {error}", batch)) from error
    if open_requests:
        raise EngineError(f"The engine {engine.name} left sequences {sorted(open_requests)} unanswered.")


def _check(engine: Engine, record: SequenceRecord, request: Request | None) -> None:
    where = f"The engine {engine.name} answered sequence {record.sequence_id}"
    if request is None:
        raise EngineError(f"{where}, which it was not asked for (or twice).")
    length = len(record.response_token_ids)
    given = request.response_token_ids
    if given is not None and (len(given) != length or (given != record.response_token_ids).any()):
        raise EngineError(f"{where} with other tokens than it was given to score.")
    for observed in (record.observed, record.raw):
        if observed is not None and observed.logprob_T.shape != (length,):
            raise EngineError(f"{where} with {observed.logprob_T.shape} log-probs for {length} tokens.")


def _without_prompts(message: str, batch: Sequence[Request]) -> str:
    """Prompts may be confidential, and messages end up in terminals and CI logs."""
    for request in batch:
        messages = request.prompt if isinstance(request.prompt, list) else [{"content": request.prompt or ""}]
        for text in filter(None, (entry.get("content") for entry in messages)):
            message = message.replace(text, "[prompt]").replace(repr(text)[1:-1], "[prompt]")
    return message if len(message) <= 1000 else f"{message[:1000]}…"
