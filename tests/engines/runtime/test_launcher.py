"""The parent's side: what it says when a worker ends badly, and that nothing is left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

import mismatchscope
from mismatchscope.composition import BatchComposition
from mismatchscope.engines.runtime import launcher
from mismatchscope.engines.runtime.job import Job
from mismatchscope.engines.runtime.launcher import job_for, run_job
from mismatchscope.engines.spec import parse_spec
from mismatchscope.errors import EngineError, MissingDependencyError, SpecError, WorkerError
from mismatchscope.records import Evidence, Request, Sampling, Task, finished_parts, write_requests

pytestmark = pytest.mark.slow

SUPPORT = Path(__file__).resolve().parents[2] / "support"


def toy_job(path: Path, **options: Any) -> Job:
    write_requests(path / "requests", [Request(i, i, prompt="p") for i in range(7)])
    task = Task("t", "rollout", str(path / "requests"), str(path / "t"), Evidence("sampled"))
    return Job("toy_engine:ToyEngine", "m", options, [task])


def synthetic_job(path: Path, spec: str) -> Job:
    write_requests(path / "requests", [Request(i, i // 2, prompt=f"prompt {i // 2}") for i in range(20)])
    sampling = Sampling(max_new_tokens=16)
    tasks = [
        Task("rollout", "rollout", str(path / "requests"), str(path / "rollout"), sampling=sampling),
        Task("score", "score", "task:rollout", str(path / "score"), composition=BatchComposition(shuffle_seed=1)),
    ]
    return job_for(parse_spec(spec), "synthetic", tasks)


def ignore(event: dict[str, Any]) -> None:
    pass


def gone(pid: int) -> bool:
    """Whether a process has ended; an orphan may stay a zombie where nobody reaps it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 9
    while not gone(pid):
        assert time.monotonic() < deadline, f"process {pid} was left behind"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("killed_in", ["rollout", "score"])
def test_a_killed_run_resumes_to_the_same_bytes(tmp_path: Path, killed_in: str) -> None:
    spec = "synthetic:noise=0.01,tv=0.02,batch_size=4,slow=0.01,vocabulary=16"
    for name in ("calm", "killed"):
        (tmp_path / name).mkdir()
    calm = run_job(synthetic_job(tmp_path / "calm", spec), log_path=tmp_path / "log", on_event=ignore)
    job, pid = synthetic_job(tmp_path / "killed", spec), 0

    def kill(event: dict[str, Any]) -> None:
        nonlocal pid
        pid = event.get("pid", pid)
        if event["event"] == "sequence" and event["task"] == killed_in and event["done"] == 6:
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(WorkerError, match=r"SIGKILL.*memory") as caught:
        run_job(job, log_path=tmp_path / "log", on_event=kill)
    assert "--resume" in caught.value.hint
    assert 6 <= len(finished_parts(tmp_path / "killed" / killed_in)) < 20
    resumed = run_job(job, log_path=tmp_path / "log", on_event=ignore)

    assert resumed.facts == calm.facts
    for task in ("rollout", "score"):
        contents = [
            {part: path.read_bytes() for part, path in finished_parts(tmp_path / name / task).items()}
            for name in ("calm", "killed")
        ]
        assert len(contents[0]) == 20 and contents[0] == contents[1]


def test_a_death_while_it_loads_comes_with_its_reason_and_the_end_of_the_log(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("from an earlier run\n")
    with pytest.raises(WorkerError, match="SIGSEGV") as caught:
        run_job(toy_job(tmp_path, fault="segfault at load"), log_path=tmp_path / "log", on_event=ignore)
    error = caught.value
    assert "Segmentation fault" in error.log_tail and "earlier run" not in error.log_tail
    assert len(error.log_tail.splitlines()) <= launcher.LOG_TAIL_LINES
    assert error.log_path == str(tmp_path / "log") and error.log_path in error.hint
    assert (tmp_path / "log").read_text().startswith("from an earlier run\n"), "the log is kept"


@pytest.mark.parametrize(("fault", "reason"), [("exit", "exit status 7"), ("segfault", "SIGSEGV")])
def test_what_a_worker_logged_of_prompts_is_in_a_file_of_the_users_alone(
    tmp_path: Path, fault: str, reason: str
) -> None:
    log = tmp_path / "log"
    log.touch(0o644)
    with pytest.raises(WorkerError, match=reason) as caught:
        run_job(toy_job(tmp_path, fault=fault), log_path=log, on_event=ignore)
    assert "last words on 'p'" in log.read_text() and log.stat().st_mode & 0o777 == 0o600
    assert caught.value.log_tail == "" and str(log) in caught.value.hint


def test_a_worker_that_has_closed_its_output_and_stays_is_not_waited_for(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(WorkerError, match="before its work did"):
        run_job(toy_job(tmp_path, fault="closed"), log_path=tmp_path / "log", on_event=ignore)
    assert time.monotonic() - began < 30


def test_the_synthetic_crash(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match="SIGKILL"):
        run_job(synthetic_job(tmp_path, "synthetic:fail_at=5"), log_path=tmp_path / "log", on_event=ignore)
    assert [*finished_parts(tmp_path / "rollout")] == [0, 1, 2, 3, 4]


def test_a_missing_package_of_ours_and_of_another_interpreter(tmp_path: Path) -> None:
    job = toy_job(tmp_path, fault="import")
    with pytest.raises(MissingDependencyError, match="torch") as caught:
        run_job(job, log_path=tmp_path / "log", on_event=ignore)
    assert caught.value.hint == "pip install 'mismatchscope[torch]'"

    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    with pytest.raises(EngineError, match=r"needs the package numpy, which .*venv/bin/python does not") as caught:
        run_job(job, python=python, log_path=tmp_path / "log", on_event=ignore)
    assert caught.value.hint == f"{python} -m pip install numpy"

    with pytest.raises(SpecError, match="nowhere/python cannot be started"):
        run_job(job, python="/nowhere/python", log_path=tmp_path / "log", on_event=ignore)


def test_silence_is_shown_and_an_exception_of_the_listener_ends_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "WAITING_SECONDS", 0.05)
    seen: list[dict[str, Any]] = []

    def listen(event: dict[str, Any]) -> None:
        seen.append(event)
        if event["event"] == "waiting" and any(other["event"] == "sequence" for other in seen):
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        run_job(toy_job(tmp_path, fault="hang"), log_path=tmp_path / "log", on_event=listen)
    assert seen[-1]["seconds"] > 0
    assert gone(next(event["pid"] for event in seen if "pid" in event))


def test_children_of_a_dead_worker_neither_hold_us_up_nor_stay(tmp_path: Path) -> None:
    pid = 0

    def kill(event: dict[str, Any]) -> None:
        nonlocal pid
        pid = event.get("pid", pid)
        if event["event"] == "sequence":
            os.kill(pid, signal.SIGKILL)

    began = time.monotonic()
    with pytest.raises(WorkerError, match="SIGKILL"):
        run_job(toy_job(tmp_path, fault="orphan"), log_path=tmp_path / "log", on_event=kill)
    assert time.monotonic() - began < 30
    orphan = next(line for line in (tmp_path / "log").read_text().splitlines() if line.startswith("orphan"))
    wait_until_gone(int(orphan.split()[1]))


def test_an_interrupt_ends_the_worker_first(tmp_path: Path) -> None:
    toy_job(tmp_path)
    program = f"""
        import sys
        sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(SUPPORT)!r}]
        from pathlib import Path
        from test_launcher import run_job, toy_job
        def show(event):
            print(event.get("pid", event["event"]), flush=True)
        path = Path({str(tmp_path)!r})
        run_job(toy_job(path, fault="hang"), log_path=path / "log", on_event=show)
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    worker = int(parent.stdout.readline())
    for line in parent.stdout:
        if line.strip() == "sequence":
            break
    parent.send_signal(signal.SIGINT)
    _, stderr = parent.communicate(timeout=20)
    assert stderr.strip().endswith("KeyboardInterrupt")
    assert gone(worker)


def test_a_worker_sees_this_package_and_not_its_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when installed: a site-packages directory on another interpreter's path would shadow its packages."""
    site = tmp_path / "site-packages"
    shutil.copytree(
        Path(mismatchscope.__file__).parent,
        site / "mismatchscope",
        ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"),
    )
    (site / "poison.py").write_text("")
    shutil.copy(SUPPORT / "toy_engine.py", site)
    # Neither may the directory that a person happens to stand in.
    (tmp_path / "cwd").mkdir()
    (tmp_path / "cwd" / "dataclasses.py").write_text("raise SystemExit('the wrong module')")
    write_requests(tmp_path / "requests", [Request(0, 0, prompt="p")])
    program = f"""
        import sys
        sys.path[:0] = [{str(site)!r}]
        from pathlib import Path
        import mismatchscope
        assert Path(mismatchscope.__file__).is_relative_to({str(site)!r})
        from mismatchscope.engines.runtime.launcher import run_job
        from mismatchscope.engines.runtime.job import Job
        from mismatchscope.records import Evidence, Task
        path = Path({str(tmp_path)!r})
        task = Task("t", "rollout", str(path / "requests"), str(path / "t"), Evidence("sampled"))
        job = Job("toy_engine:ToyEngine", "m", {{}}, [task])
        environment = run_job(job, log_path=path / "log", on_event=lambda event: None).facts["environment"]
        package = str(Path(mismatchscope.__file__).resolve())
        assert environment == {{"package": package, "poison": False}}, environment
    """
    monkeypatch.delenv("PYTHONPATH", raising=False)
    subprocess.run([sys.executable, "-P", "-c", textwrap.dedent(program)], cwd=tmp_path / "cwd", check=True)
