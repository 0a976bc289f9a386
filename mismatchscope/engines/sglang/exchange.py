"""What the worker and SGLang's scheduler, two processes, tell each other: files in a directory of their own.

    <number>.batch, <number>.requests       a batch to come, from the worker
    <number>/<sequence>.safetensors         a sequence that is finished, from the scheduler; then forgotten
    <number>/<sequence>.<policy>.npy        its full distributions, written first; the worker maps them
    scheduler.json                          how the scheduler was built
    error.json                              why it stopped
    checkpoint.json, tensors.json           a question for its weights, from the worker, and what came of it

The directory holds the requests and the records of the current batch, no more.
"""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ... import errors
from ...durable import write_atomic
from ...errors import EngineError, MismatchScopeError
from ...measures.tensor_results import TensorRecord
from ...records import (
    SequenceRecord,
    Task,
    read_part,
    read_requests,
    write_part,
    write_requests,
)
from ..common.adapter import Adapter
from ..common.tokenized import TokenizedRequest

_POLICIES = ("observed", "raw")


@dataclass(frozen=True)
class Batch:
    """A batch as the scheduler has to know it.

    Every request carries its response where that is scored. `lengths` is how many tokens each of them gets at most,
    `stop_ids` what ends a sample earlier.
    """

    number: int
    task: Task
    requests: Sequence[TokenizedRequest]
    lengths: Sequence[int]
    stop_ids: Sequence[int]


def request_id(number: int, row: int) -> str:
    """The id that SGLang knows a request by."""
    return f"mismatchscope-{number}-{row}"


def parse_request_id(text: str) -> tuple[int, int] | None:
    """(number of the batch, row in it); None for a request that is not ours."""
    ours, _, rest = text.partition("-")
    number, _, row = rest.partition("-")
    return (int(number), int(row)) if ours == "mismatchscope" else None


class Exchange:
    """Either side's view of the directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def post(self, batch: Batch) -> None:
        """Worker: announce a batch before SGLang hears of its requests."""
        (self._directory / str(batch.number)).mkdir()
        write_requests(self._directory / f"{batch.number}.requests", batch.requests)
        content = {"task": batch.task.to_json(), "lengths": list(batch.lengths), "stop_ids": list(batch.stop_ids)}
        write_atomic(self._directory / f"{batch.number}.batch", json.dumps(content).encode(), durable=False)

    def read(self, number: int) -> Batch:
        """Scheduler: the batch of that number."""
        content = json.loads((self._directory / f"{number}.batch").read_bytes())
        read = read_requests(self._directory / f"{number}.requests")
        requests = [TokenizedRequest(**vars(request)) for request in read]
        return Batch(number, Task.from_json(content["task"]), requests, content["lengths"], content["stop_ids"])

    def put(self, number: int, record: SequenceRecord) -> None:
        """Scheduler: hand over a finished sequence."""
        directory = self._directory / str(number)
        small = {}
        for policy in _POLICIES:
            seen = getattr(record, policy)
            if seen is not None and seen.full_logprobs_RV is not None:
                np.save(directory / f"{record.sequence_id}.{policy}.npy", seen.full_logprobs_RV)
                small[policy] = replace(seen, full_logprobs_RV=None)
        write_part(directory, replace(record, **small))

    def take(self, number: int) -> list[SequenceRecord]:
        """Worker: the sequences that were finished since the last time."""
        directory = self._directory / str(number)
        records = []
        for path in sorted(directory.glob("*.safetensors")):
            record = read_part(path)
            path.unlink()
            for policy in _POLICIES:
                full = directory / f"{record.sequence_id}.{policy}.npy"
                if full.exists():
                    getattr(record, policy).full_logprobs_RV = np.load(full, mmap_mode="r")
                    full.unlink()  # what is mapped stays readable
            records.append(record)
        return records

    def close(self, number: int) -> None:
        """Worker: forget a batch."""
        shutil.rmtree(self._directory / str(number))
        for suffix in ("batch", "requests"):
            (self._directory / f"{number}.{suffix}").unlink()

    def describe(self, facts: dict[str, Any]) -> None:
        """Scheduler: how it was built."""
        write_atomic(self._directory / "scheduler.json", json.dumps(facts).encode(), durable=False)

    def scheduler_facts(self) -> dict[str, Any] | None:
        """Worker: what the scheduler described; None when it did not."""
        path = self._directory / "scheduler.json"
        return json.loads(path.read_bytes()) if path.exists() else None

    def ask_for_weights(self, directory: Path, adapter: Adapter | None) -> None:
        """Worker: have what is loaded held against the checkpoint, at the next request that is of no batch."""
        question = {"directory": str(directory), "adapter": None if adapter is None else str(adapter.directory)}
        write_atomic(self._directory / "checkpoint.json", json.dumps(question).encode(), durable=False)

    def asked_for_weights(self) -> tuple[Path, Adapter | None] | None:
        """Scheduler: the checkpoint, and the adapter on it, where the worker asks."""
        path = self._directory / "checkpoint.json"
        if not path.exists():
            return None
        question = json.loads(path.read_bytes())
        adapter = None if question["adapter"] is None else Adapter(Path(question["adapter"]), {})
        return Path(question["directory"]), adapter

    def put_weights(self, records: Sequence[TensorRecord]) -> None:
        """Scheduler: what came of it."""
        content = [asdict(record) for record in records]
        write_atomic(self._directory / "tensors.json", json.dumps(content).encode(), durable=False)

    def weights(self) -> list[TensorRecord]:
        """Worker: the same."""
        content = json.loads((self._directory / "tensors.json").read_bytes())
        return [TensorRecord(**record) for record in content]

    def fail(self, error: Exception) -> None:
        """Scheduler: why it stops. The first reason stays."""
        path = self._directory / "error.json"
        if path.exists():
            return
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            content = {"errno": error.errno, "message": error.strerror, "filename": str(error.filename)}
        elif isinstance(error, MismatchScopeError):
            content = {"type": type(error).__name__, "message": error.message, "hint": error.hint}
        else:
            content = {"type": "EngineError", "message": f"{type(error).__name__}: {error}", "hint": None}
        write_atomic(path, json.dumps(content).encode(), durable=False)

    def failure(self) -> Exception | None:
        """Worker: why the scheduler stopped, as an exception; None when it gave no reason."""
        path = self._directory / "error.json"
        if not path.exists():
            return None
        content = json.loads(path.read_bytes())
        if "errno" in content:
            return OSError(content["errno"], content["message"], content["filename"])
        return getattr(errors, content["type"], EngineError)(content["message"], content["hint"])
