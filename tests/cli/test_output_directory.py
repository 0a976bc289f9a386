"""The installed command and the directory that it writes to: two runs at once, one after a kill, and --force."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import COMMAND, SMALL, SYNTHETIC, audit, run

pytestmark = pytest.mark.slow

LOCK = ".mismatchscope.lock"


@contextlib.contextmanager
def at_work(directory: Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """An audit whose worker has been started, stopped meanwhile."""
    command = [COMMAND, "-q", "audit", *SYNTHETIC, *SMALL, "-o", str(directory)]
    silent = subprocess.DEVNULL
    environment = os.environ | variables
    process = subprocess.Popen(command, env=environment, stdout=silent, stderr=silent, start_new_session=True)
    deadline = time.monotonic() + 120
    while not (directory / "logs").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGSTOP)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.wait(120)


def test_the_second_run_in_one_directory_is_told_who_writes_there(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    with at_work(directory) as first:
        attempts = [
            audit(directory, "--force"),
            run("rollout", "--engine", "synthetic", "-o", directory, "--resume"),
            run("rollout", "--engine", "synthetic", "-o", directory / "behavior"),
        ]
    for done in attempts:
        assert done.returncode == 2
        assert f"is in use by process {first.pid} on " in done.stderr
        assert "audit" in done.stderr
    assert first.returncode == 0
    assert json.loads((directory / "report.json").read_bytes())["counts"]["prompts"] == 12
    assert not (directory / LOCK).exists()


def test_after_a_kill_the_next_run_goes_on_and_clears_the_temporary_files(tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with at_work(tmp_path / "run", TMPDIR=str(temporary)) as killed:
        killed.kill()
    left = list(temporary.iterdir())
    again = audit(tmp_path / "run", "--resume", TMPDIR=str(temporary))
    assert left
    assert (again.returncode, list(temporary.iterdir())) == (0, [])


def test_force_replaces_a_run_and_keeps_what_no_run_wrote(tmp_path: Path) -> None:
    assert audit(tmp_path / "run", "--temperature", "0.7").returncode == 0
    (tmp_path / "run" / "src").mkdir()
    (tmp_path / "run" / "src" / "mine.py").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    stopped = audit(tmp_path / "run", "--force")
    assert stopped.returncode == 2
    assert "holds src/, which no run of mismatchscope wrote" in stopped.stderr
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "run" / "src").rename(tmp_path / "src")
    replaced = run("audit", *SYNTHETIC, *SMALL, "-o", ".", "--force", cwd=tmp_path / "run")
    assert replaced.returncode == 0
    assert not (tmp_path / "run" / "behavior-raw").exists()
