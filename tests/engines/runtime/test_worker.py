"""The worker as a process: what it writes where, what it goes on from, and when it goes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mismatchscope.composition import BatchComposition
from mismatchscope.engines.runtime.job import Job
from mismatchscope.engines.runtime.launcher import run_job
from mismatchscope.errors import (
    CapabilityError,
    DiskFullError,
    EmptyComparisonError,
    EngineError,
    MisalignedError,
    ModelError,
    OutputExistsError,
    SpecError,
)
from mismatchscope.records import (
    Evidence,
    Request,
    Task,
    finished_parts,
    read_part,
    write_requests,
)

pytestmark = pytest.mark.slow

SUPPORT = Path(__file__).resolve().parents[2] / "support"

Run = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a rollout of seven sequences and a score of the same in a toy engine; returns the events."""
    write_requests(tmp_path / "requests", [Request(i, i, prompt=f"a secret prompt {i}") for i in range(7)])

    def run(model: str = "m", version: str | None = None, shuffle: int | None = None, **options: Any) -> list[Any]:
        events: list[dict[str, Any]] = []
        run_job(
            Job("toy_engine:ToyEngine", model, options, toy_tasks(tmp_path, shuffle), version),
            log_path=tmp_path / "log",
            on_event=events.append,
        )
        return events

    return run


def toy_tasks(path: Path, shuffle: int | None = None) -> list[Task]:
    common = {"requests": str(path / "requests"), "evidence": Evidence("sampled")}
    first = Task("first", "rollout", parts=str(path / "first"), **common)
    again = replace(first, name="again", kind="score", requests="task:first", parts=str(path / "again"))
    return [first, replace(again, composition=BatchComposition(shuffle_seed=shuffle))]


def contents(path: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for name in ("first", "again") for file in (path / name).iterdir()}


def test_events_tell_the_whole_story(run: Run, tmp_path: Path) -> None:
    events = run()
    kinds = [event["event"] for event in events]
    work = ["task", *["sequence"] * 7, "task_done"]
    assert kinds == ["loading", "ready", *work, *work, "done"]
    assert events[1]["facts"]["engine"] == "toy"
    assert events[2] == {"event": "task", "name": "first", "sequences_total": 7, "done": 0}
    assert [event["done"] for event in events if event["event"] == "sequence"] == [*range(1, 8)] * 2
    assert [event["tokens"] for event in events if event["event"] == "task_done"] == [14, 14]
    log = (tmp_path / "log").read_text()
    for printed in ("printed by Python", "written to descriptor 1", "printed by a child"):
        assert printed in log


def test_parts_hold_the_answers(run: Run, tmp_path: Path) -> None:
    run()
    for name in ("first", "again"):
        parts = finished_parts(tmp_path / name)
        assert [*parts] == [*range(7)]
        record = read_part(parts[5])
        assert (record.response_token_ids.tolist(), record.batch) == ([1, 2], 1)
        assert {*(tmp_path / name).iterdir()} == {*parts.values()}, "nothing else lies beside them"


def test_what_an_earlier_run_finished_is_left_alone_and_the_rest_keeps_its_neighbours(
    run: Run, tmp_path: Path
) -> None:
    run(shuffle=3)
    before = contents(tmp_path)
    neighbours = {part: read_part(part).extra["neighbours"] for part in before if part.suffix == ".safetensors"}
    removed = [tmp_path / "first" / "000000004.safetensors", tmp_path / "again" / "000000002.safetensors"]
    for path in removed:
        path.unlink()
    (tmp_path / "first" / ".000000004.safetensors.1.tmp").write_bytes(b"cut off")
    kept = {path: path.stat().st_mtime_ns for path in before if path.exists()}

    events = run(shuffle=3)

    assert [event["sequence_id"] for event in events if event["event"] == "sequence"] == [4, 2]
    assert {
        path: path.read_bytes() for name in ("first", "again") for path in (tmp_path / name).iterdir()
    } == before
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert all(read_part(part).extra["neighbours"] == ids for part, ids in neighbours.items())


def test_nothing_is_made_or_swept_before_the_parent_has_looked_at_the_facts(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run()
    (tmp_path / "first" / "000000004.safetensors").unlink()
    (tmp_path / "again" / ".000000001.safetensors.1.tmp").write_bytes(b"cut off")
    before = contents(tmp_path)
    monkeypatch.setenv("TOY_WEIGHTS", "w1")

    def refuse(event: dict[str, Any]) -> None:
        if event["event"] == "ready":
            time.sleep(0.5)  # time enough to make them all
            assert event["facts"]["model"]["weights_sha256"] == "w1"
            raise OutputExistsError("other weights")

    with pytest.raises(OutputExistsError, match="other weights"):
        run_job(
            Job("toy_engine:ToyEngine", "m", {}, toy_tasks(tmp_path)), log_path=tmp_path / "log", on_event=refuse
        )
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        ("model", ModelError, "The model is not there."),
        ("disk", DiskFullError, "no room left to write /somewhere/part"),
        ("other id", EngineError, "sequence 100, which it was not asked for"),
        ("other tokens", EngineError, "other tokens than it was given"),
        ("short", EngineError, r"\(3,\) log-probs for 2 tokens"),
    ],
)
def test_an_error_keeps_its_kind_and_message(run: Run, fault: str, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says) as caught:
        run(fault=fault)
    assert type(caught.value) is kind
    assert caught.value.hint
    assert caught.value.log_tail == "", "the message says it all"


def test_an_unexpected_exception_tells_its_message_but_no_prompt(run: Run, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"ValueError: cannot tokenise '\[prompt\]'") as caught:
        run(fault="exception")
    assert "secret" not in str(caught.value) and "Traceback" not in str(caught.value)
    assert str(tmp_path / "log") in caught.value.hint
    assert "Traceback" in (tmp_path / "log").read_text()
    assert caught.value.log_tail == "", "its last lines repeat the prompt"


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("exception on a piece", r"ValueError: near '\[prompt\]'"),
        ("exception of the system", r"FileNotFoundError: .*'\[prompt\]'"),
        ("exception in check", r"ValueError: \['\[prompt\]"),
        ("exception of ours", r"It stopped at \[prompt\]"),
    ],
)
def test_whatever_an_engine_says_of_a_prompt_is_not_shown(run: Run, fault: str, says: str) -> None:
    with pytest.raises(EngineError, match=says) as caught:
        run(fault=fault)
    assert "secret" not in f"{caught.value.message}{caught.value.hint}{caught.value.log_tail}"


def test_the_version_asked_for_is_the_version_that_runs(run: Run) -> None:
    with pytest.raises(SpecError, match=r"has toy 1\.0, not 2\.0"):
        run(version="2.0")
    run(version="1")  # 1 is 1.0


def test_what_an_engine_cannot_see_is_refused_before_it_loads(tmp_path: Path) -> None:
    write_requests(tmp_path / "requests", [Request(0, 0, prompt="p")])
    for task, says in (
        (Task("t", "rollout", str(tmp_path / "requests"), str(tmp_path / "t"), Evidence("full")), "full evidence"),
        (
            Task("t", "score", str(tmp_path / "requests"), str(tmp_path / "t"), Evidence("sampled"), path="decode"),
            "cannot score by decode; it knows prefill",
        ),
    ):
        with pytest.raises(CapabilityError, match=says):
            run_job(
                Job("toy_engine:ToyEngine", "m", {}, [task]), log_path=tmp_path / "log", on_event=lambda event: None
            )
    assert "printed by Python" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize(("ids", "kind"), [([], EmptyComparisonError), ([1, 1], MisalignedError)])
def test_requests_that_cannot_be_kept_apart_are_an_error(
    tmp_path: Path, ids: list[int], kind: type[Exception]
) -> None:
    write_requests(tmp_path / "requests", [Request(i, 0, prompt="p") for i in ids])
    with pytest.raises(kind):
        run_job(
            Job("toy_engine:ToyEngine", "m", {}, toy_tasks(tmp_path)),
            log_path=tmp_path / "log",
            on_event=lambda event: None,
        )


@pytest.fixture
def worker(tmp_path: Path) -> subprocess.Popen[bytes]:
    """A worker that hangs in its first task, its events read up to there."""
    write_requests(tmp_path / "requests", [Request(i, i, prompt="p") for i in range(7)])
    job = Job("toy_engine:ToyEngine", "m", {"fault": "hang"}, toy_tasks(tmp_path))
    (tmp_path / "job.json").write_text(json.dumps(job.to_json()))
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mismatchscope.engines.runtime.worker", str(tmp_path / "job.json")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(SUPPORT), *sys.path])},
            start_new_session=True,
        )
    for line in process.stdout:
        event = json.loads(line)["event"]
        if event == "ready":
            os.write(process.stdin.fileno(), b"\n")
        if event == "sequence":
            break
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def test_a_worker_goes_when_its_parent_is_gone(worker: subprocess.Popen[bytes]) -> None:
    began = time.monotonic()
    worker.stdin.close()
    worker.wait(timeout=9)
    assert time.monotonic() - began < 9


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_goes_in_order_when_told_to(
    worker: subprocess.Popen[bytes], number: signal.Signals, tmp_path: Path
) -> None:
    worker.send_signal(number)
    assert worker.wait(timeout=9) == 128 + number
    assert [path.suffix for path in (tmp_path / "first").iterdir() if path.name.startswith(".")] == []
