"""A worker that stays: several jobs in one process, and another one after a failure."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from mismatchscope.engines.runtime.job import Job
from mismatchscope.engines.runtime.resident import ResidentWorker
from mismatchscope.errors import EngineError, WorkerError
from mismatchscope.records import Evidence, Request, Task, finished_parts, write_requests

pytestmark = pytest.mark.slow


@pytest.fixture
def worker(tmp_path: Path):
    with ResidentWorker(tmp_path / "log") as worker:
        yield worker


def run(worker: ResidentWorker, directory: Path, number: int, **options: Any) -> int:
    """Do a job of its own; the process that did it."""
    directory = directory / str(number)
    directory.mkdir()
    write_requests(directory / "requests", [Request(i, i, prompt="p") for i in range(3)])
    task = Task("t", "rollout", str(directory / "requests"), str(directory / "t"), Evidence("sampled"))
    pids: list[int] = []

    def note(event: dict[str, Any]) -> None:
        if event["event"] == "loading":
            pids.append(event["pid"])

    job = Job("toy_engine:ToyEngine", "m", options, [task])
    result = worker(job, log_path=directory / "unused", on_event=note)
    assert result.tokens == {"t": 6} and result.facts["engine"] == "toy"
    assert len(finished_parts(directory / "t")) == 3
    assert not (directory / "unused").exists()
    return pids[0]


def test_jobs_of_one_engine_share_a_process_that_goes_in_the_end(tmp_path: Path) -> None:
    with ResidentWorker(tmp_path / "log") as worker:
        first = run(worker, tmp_path, 0)
        assert run(worker, tmp_path, 1, size=5) == first
    time.sleep(0.1)
    assert not Path(f"/proc/{first}").exists()


@pytest.mark.parametrize(("fault", "error"), [("exception", EngineError), ("segfault", WorkerError)])
def test_a_failed_job_costs_no_other(worker: ResidentWorker, tmp_path: Path, fault: str, error: type) -> None:
    first = run(worker, tmp_path, 0)
    with pytest.raises(error):
        run(worker, tmp_path, 1, fault=fault)
    second = run(worker, tmp_path, 2)
    assert second != first and second != os.getpid()
