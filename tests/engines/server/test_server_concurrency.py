"""Many requests under way, and how they end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer
from misbehaving_server import MisbehavingServer
from server_engine import SAMPLED, UNCHANGED, Connect, job_of, rollout, sample, short_requests

from mismatchscope.engines.runtime.launcher import run_job
from mismatchscope.engines.runtime.worker import GRACE_SECONDS
from mismatchscope.errors import EngineError
from mismatchscope.records import Sampling, Task

pytestmark = pytest.mark.slow

TASK = Task("t", "rollout", "", "", SAMPLED, sampling=Sampling(max_new_tokens=4))


def eventually(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 5
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.01)
    return holds()


def test_as_many_requests_are_under_way_as_allowed(connect: Connect) -> None:
    with FakeServer("vllm", seconds=0.03) as server:
        rollout(connect(server, concurrency="3"), SAMPLED, UNCHANGED)
        assert server.most_at_once == 3


def test_the_first_failure_ends_all_that_is_under_way(vllm: MisbehavingServer, connect: Connect) -> None:
    engine = connect(vllm, timeout="60", retries="2", concurrency="4")
    vllm.faults, vllm.always = ["stall", "stall", "stall", "other model"], "stall"
    began = time.monotonic()
    with pytest.raises(EngineError, match="the model another"):
        sample(engine, count=8)
    assert time.monotonic() - began < 10
    assert len(vllm.attempts) <= 5
    assert eventually(lambda: vllm.connections <= 1), "all but the one that was answered are closed"


def test_records_come_as_they_finish(vllm: MisbehavingServer, connect: Connect) -> None:
    engine = connect(vllm, timeout="60", concurrency="2")
    vllm.faults = ["stall"]
    records = engine.rollout(short_requests(4), TASK)
    assert {next(records).sequence_id for _ in range(3)} in ({1, 2, 3}, {0, 2, 3}), "one of the first two stalls"
    vllm.released.set()
    with pytest.raises(EngineError, match="closed the connection"):
        next(records)


def test_what_finished_before_a_failure_comes_first(vllm: MisbehavingServer, connect: Connect) -> None:
    engine = connect(vllm, concurrency="1")
    vllm.faults = ["", "", "other model"]
    records = engine.rollout(short_requests(4), TASK)
    assert [next(records).sequence_id for _ in range(2)] == [0, 1]
    with pytest.raises(EngineError, match="the model another"):
        next(records)
    assert len(vllm.attempts) == 3, "the fourth is not asked for"


@pytest.mark.parametrize("ended_by", ["the caller", "the engine"])
def test_a_batch_given_up_leaves_no_connection_and_no_retry(
    ended_by: str, vllm: MisbehavingServer, connect: Connect
) -> None:
    engine = connect(vllm, timeout="60", retries="9", concurrency="4")
    vllm.faults, vllm.always = ["", "stall", "stall", "busy", ""], "stall"
    records = engine.rollout(short_requests(8), TASK)
    next(records)
    next(records)
    assert len(vllm.attempts) >= 5
    if ended_by == "the caller":
        records.close()
        assert eventually(lambda: vllm.connections <= 2), "idle ones may be left: of the answered and the busy"
    engine.close()
    assert eventually(lambda: vllm.connections == 0)
    attempts = len(vllm.attempts)
    time.sleep(1.2)  # beyond the second after which the busy server would be asked again
    assert len(vllm.attempts) == attempts


def test_an_exit_under_way_ends_all_at_once(vllm: MisbehavingServer, connect: Connect) -> None:
    """As the worker has it: a signal raises SystemExit wherever the program is."""
    engine = connect(vllm, timeout="60", retries="9")
    vllm.always = "stall"

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    previous = signal.signal(signal.SIGALRM, leave)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        began = time.monotonic()
        with pytest.raises(SystemExit):
            sample(engine, count=8)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert time.monotonic() - began < 5
    assert len(vllm.attempts) == 8
    assert eventually(lambda: vllm.connections == 0)


def test_an_interrupt_does_not_wait_for_a_server_that_stalls(
    vllm: MisbehavingServer, model: Path, tmp_path: Path
) -> None:
    job = job_of(f"vllm@{vllm.url}", model, tmp_path, short_requests(1))
    pids, interrupted = [], []

    def on_event(event: dict[str, Any]) -> None:
        pids.extend([event["pid"]] if event["event"] == "loading" else [])
        if event["event"] == "ready":
            vllm.always = "stall"
        if event["event"] == "task":
            time.sleep(0.3)
            interrupted.append(time.monotonic())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(job, log_path=tmp_path / "log", on_event=on_event)
    assert time.monotonic() - interrupted[0] < GRACE_SECONDS
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
