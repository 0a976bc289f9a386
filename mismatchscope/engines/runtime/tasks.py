"""One task in a worker: hand the engine its batches and put every finished sequence on disk.

After a kill, a batch that lacks a sequence runs again as a whole, so that every sequence keeps the neighbours that
it has in an undisturbed run; only what is missing is written.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from ...composition import BatchComposition
from ...durable import sync_files, write_atomic
from ...errors import CapabilityError, EngineError, MismatchScopeError
from ...file_errors import NO_ROOM
from ...records import Request, SequenceRecord, Task, finished_parts, read_requests, write_part
from ..base import Engine
from ..common.prompt_texts import without_prompts, without_quotations
from ..common.stage_files import finished_internals
from .batching import check_batches, plan_batches, within
from .job import WEIGHTS, Job, load_requests, open_parts

Emit = Callable[..., None]
"""emit(event, **fields): tell the parent."""


def check_capabilities(engine: Engine, task: Task) -> None:
    """Raise `CapabilityError` when an engine cannot do a task, before anything slow happens."""
    able = engine.capabilities_with(engine.options)
    if task.kind == "weights":
        if not able.weights:
            raise CapabilityError(f"The engine {engine.name} does not show the parameters that it has loaded.")
        return
    if task.kind == "internals":
        if not able.internals or (task.inputs and not able.injection):
            raise CapabilityError(
                f"The engine {engine.name} does not {'take other values into' if able.internals else 'show'} "
                "what is inside its model."
            )
        return
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
    if task.kind == "score" and task.inputs and not (able.injection and task.path == "prefill"):
        raise CapabilityError(f"The engine {engine.name} takes no values of another side as it {task.path}s.")
    if task.sampling.min_p or task.sampling.reweighs:
        raise CapabilityError(
            f"The engine {engine.name} draws and scores without min-p, penalties and biases; the trace has one.",
            hint="score it as the reference, which applies none, or compare the traces that were logged",
        )
    padding = task.composition.padding
    if padding is not None and (task.kind != "score" or task.path != "prefill"):
        raise CapabilityError(
            f"Padding {padding} is a layout of a prefill; the task {task.name} decodes.", hint="leave padding out"
        )
    if padding is not None and padding not in able.paddings:
        knows = f"it knows {', '.join(able.paddings)}" if able.paddings else "it lays its batches out by itself"
        raise CapabilityError(
            f"The engine {engine.name} has no padding {padding}: {knows}.", hint="the engine transformers pads"
        )
    cache = task.composition.prefix_cache
    if cache is not None and cache not in able.prefix_caches:
        raise CapabilityError(f"The engine {engine.name} cannot begin a batch with a {cache} prefix cache.")
    if cache is not None and task.kind == "score" and task.path == "prefill":
        raise CapabilityError(
            "A score along prefill computes every state, whatever the prefix cache has.", hint="score along decode"
        )


def check_composition(job: Job, task: Task) -> None:
    """Raise `ConfigError` when explicit batches are of other sequences than the task's, before the engine loads."""
    if task.composition.batches is None:
        return
    source = task
    while (earlier := job.source_of(source)) is not None:
        source = earlier
    check_batches(
        task.composition.batches, {request.sequence_id for request in read_requests(Path(source.requests))}
    )


def run_task(engine: Engine, job: Job, task: Task, emit: Emit) -> None:
    """Finish a task and say so, sequence by sequence."""
    if task.kind == "weights":
        if task.requests:
            engine.update(task.requests)
        records = [asdict(record) for record in engine.weights()]
        write_atomic(Path(task.parts) / WEIGHTS, json.dumps(records).encode(), durable=False)
        return
    if task.kind == "internals":
        _show_internals(engine, job, task, emit)
        return
    parts = open_parts(job, task)
    requests = load_requests(job, task)
    finished = finished_parts(parts).keys()
    with _no_prompt_in_errors(requests):
        engine.check(requests, task)
    batches = _share_of(job, plan_batches(requests, task.composition.over(engine.default_composition)))
    total = sum(len(batch) for batch in batches.values())
    done = sum(request.sequence_id in finished for batch in batches.values() for request in batch)
    tokens, began = 0, time.monotonic()
    emit("task", name=task.name, sequences_total=total, done=done)
    for index, batch in batches.items():
        if all(request.sequence_id in finished for request in batch):
            continue
        written: list[Path] = []
        for record in _run_batch(engine, batch, task):
            if record.sequence_id in finished:
                continue
            record.batch = index
            written.append(write_part(parts, record, run=task.run))
            done, tokens = done + 1, tokens + len(record.response_token_ids)
            emit(
                "sequence",
                task=task.name,
                sequence_id=record.sequence_id,
                tokens=len(record.response_token_ids),
                done=done,
                total=total,
            )
        sync_files(written)  # a batch that lacks a sequence after a power cut runs again as a whole anyway
    emit("task_done", task=task.name, seconds=time.monotonic() - began, tokens=tokens)


def _show_internals(engine: Engine, job: Job, task: Task, emit: Emit) -> None:
    """Each sequence in a forward of its own, where the task's composition does not say otherwise."""
    parts, requests = open_parts(job, task), within(load_requests(job, task), task.extent)
    with _no_prompt_in_errors(requests):
        engine.check(requests, task)
    alone = BatchComposition(batch_size=1, order="given")
    done, began = 0, time.monotonic()
    emit("task", name=task.name, sequences_total=len(requests), done=0)
    for batch in plan_batches(requests, task.composition.over(alone)):
        ids = {request.sequence_id for request in batch}
        if not ids <= finished_internals(parts).keys():
            with _no_prompt_in_errors(batch):
                engine.internals(batch, task)
        if left_out := ids - finished_internals(parts).keys():
            raise EngineError(f"The engine {engine.name} showed nothing of the sequences {sorted(left_out)}.")
        for request in batch:
            done += 1
            read = len(request.response_token_ids) if request.response_token_ids is not None else 0
            emit(
                "sequence",
                task=task.name,
                sequence_id=request.sequence_id,
                tokens=read,
                done=done,
                total=len(requests),
            )
    emit("task_done", task=task.name, seconds=time.monotonic() - began, tokens=0)


def _share_of(job: Job, batches: list[list[Request]]) -> dict[int, list[Request]]:
    """The batches that this worker runs, by their places in the whole task."""
    number, workers = job.share
    return {index: batch for index, batch in enumerate(batches) if index % workers == number}


def _run_batch(engine: Engine, batch: Sequence[Request], task: Task) -> Iterator[SequenceRecord]:
    """The records of a batch, each checked against its request; none may be missing."""
    open_requests = {request.sequence_id: request for request in batch}
    with _no_prompt_in_errors(batch):
        for record in engine.rollout(batch, task) if task.kind == "rollout" else engine.score(batch, task):
            _check(engine, record, open_requests.pop(record.sequence_id, None))
            yield record
    if open_requests:
        raise EngineError(f"The engine {engine.name} left out the sequences {sorted(open_requests)}.")


@contextmanager
def _no_prompt_in_errors(requests: Sequence[Request]) -> Iterator[None]:
    """Mask what an exception of the engine's, or the reason that one of ours gives, quotes of the prompts."""
    try:
        yield
    except MismatchScopeError as error:
        if isinstance(error, EngineError):
            error.message = without_quotations(error.message, requests)
        raise
    except Exception as error:
        if isinstance(error, ImportError) or (isinstance(error, OSError) and error.errno in NO_ROOM):
            raise
        raise EngineError(without_prompts(f"{type(error).__name__}: {error}", requests)) from error


def _check(engine: Engine, record: SequenceRecord, request: Request | None) -> None:
    where = f"The engine {engine.name} returned sequence {record.sequence_id}"
    if request is None:
        raise EngineError(f"{where}, which it was not asked for (or twice).")
    length = len(record.response_token_ids)
    given = request.response_token_ids
    if given is not None and (len(given) != length or (given != record.response_token_ids).any()):
        raise EngineError(f"{where} with other tokens than it was given to score.")
    for observed in (record.observed, record.raw):
        if observed is not None and observed.logprob_T.shape != (length,):
            raise EngineError(f"{where} with {observed.logprob_T.shape} log-probs for {length} tokens.")
