"""An engine on a Ray cluster makes the trace that one process makes, byte for byte."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from mismatchscope.collection.ray_workers import RayWorkers, _checked, job_runner
from mismatchscope.collection.single_trace import ScoreSettings, sample_trace, score_trace
from mismatchscope.config import AuditSettings, load_settings
from mismatchscope.engines.runtime.launcher import run_job
from mismatchscope.errors import EngineError, UsageError

FILES = ("sequences.parquet", "tokens.parquet", "distributions.safetensors")
ENGINE = "transformers:dtype=bfloat16,batch_size=4"


def settings() -> AuditSettings:
    wanted = {"behavior": ENGINE, "limit": 6, "sampling.samples": 3, "sampling.max_new_tokens": 8}
    return load_settings(None, wanted, [])


def same(a: Path, b: Path) -> bool:
    return all((a / name).read_bytes() == (b / name).read_bytes() for name in FILES)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    trace = tmp_path_factory.mktemp("alone") / "mu"
    sample_trace(settings(), trace, on_event=lambda event: None)
    return trace


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_workers_share_a_rollout_and_a_scoring(alone: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    events: list[dict[str, Any]] = []
    mu = tmp_path / "mu"
    sample_trace(settings(), mu, on_event=events.append, run=RayWorkers("local", 2))
    assert same(mu, alone)
    last = max((event for event in events if event["event"] == "sequence"), key=lambda event: event["done"])
    assert (last["done"], last["total"]) == (18, 18)
    assert (tmp_path / "mu-0.log").exists() and (tmp_path / "mu-1.log").exists()
    scoring = ScoreSettings(ENGINE, settings().model)
    score_trace(mu, tmp_path / "pi", scoring, on_event=events.append, run=RayWorkers("local", 2))
    score_trace(mu, tmp_path / "again", scoring, on_event=events.append)
    assert same(tmp_path / "pi", tmp_path / "again")


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_a_worker_whose_process_is_lost_goes_on(alone: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    killed: list[int] = []

    def kill_an_actor(event: dict[str, Any]) -> None:
        if event["event"] == "sequence" and not killed:
            actors = [
                int(path.name)
                for path in Path("/proc").iterdir()
                if path.name.isdigit() and _title(path).startswith("ray::EngineActor") and _is_below(int(path.name))
            ]
            killed.extend(actors[:1])
            os.kill(actors[0], signal.SIGKILL)

    mu = tmp_path / "mu"
    sample_trace(settings(), mu, on_event=kill_an_actor, run=RayWorkers("local", 2))
    assert killed
    assert same(mu, alone)


def _title(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _is_below(pid: int) -> bool:
    """Whether a process descends from this one: another test may run a cluster of its own."""
    while pid > 1:
        if pid == os.getpid():
            return True
        try:
            pid = int((Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return False
    return False


def test_workers_that_are_not_the_same_engine_are_refused() -> None:
    facts = {"engine_version": "1", "environment": {"gpu": "A"}}
    assert _checked(None, facts) == _checked(facts, dict(facts)) == facts
    with pytest.raises(EngineError, match="they differ in environment"):
        _checked(facts, facts | {"environment": {"gpu": "B"}})


def test_workers_are_of_a_cluster() -> None:
    assert job_runner(None, None) is run_job
    assert job_runner("local", 3) == RayWorkers("local", 3)
    with pytest.raises(UsageError, match="--ray-workers is of a cluster"):
        job_runner(None, 3)
