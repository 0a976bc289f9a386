"""What the tests of real engines start them with ends as a worker does that was started the usual way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fork_server
import pytest


@pytest.fixture(scope="module")
def forking() -> Path:
    return fork_server.interpreter(Path(sys.executable), "no engine")


@pytest.fixture
def start(forking: Path, tmp_path: Path):
    """Start a module of the given source, with pipes."""

    def start(source: str, *arguments: str) -> subprocess.Popen[str]:
        (tmp_path / "forked_module.py").write_text(source)
        return subprocess.Popen(
            [forking, "-m", "forked_module", *arguments],
            env=os.environ | {"PYTHONPATH": str(tmp_path), "ONLY_HERE": "yes"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def test_a_forked_module_has_the_streams_arguments_and_environment(start) -> None:
    process = start(
        "import os, sys\nprint(sys.argv[1:], os.environ['ONLY_HERE'], __name__, sys.stdin.read())\n"
        "print('log', file=sys.stderr)\nsys.exit(7)",
        "one",
        "two",
    )
    assert process.communicate("input") == ("['one', 'two'] yes __main__ input\n", "log\n")
    assert process.returncode == 7


def test_an_exception_is_a_failure_and_is_shown(start) -> None:
    process = start("raise ValueError('reason')")
    assert "ValueError: reason" in process.communicate()[1]
    assert process.returncode == 1


@pytest.mark.parametrize("victim", ["client", "forked"])
def test_whichever_is_killed_the_rest_goes_too(start, victim: str) -> None:
    process = start(
        "import os, subprocess, time\nchild = subprocess.Popen(['sleep', '600'])\n"
        "print(os.getpid(), child.pid, flush=True)\ntime.sleep(600)"
    )
    forked, child = map(int, process.stdout.readline().split())
    os.kill(process.pid if victim == "client" else forked, signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL
    deadline = time.monotonic() + 30
    while any(_runs(pid) for pid in (forked, child)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie that init has yet to collect."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
