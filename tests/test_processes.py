"""Commands that are followed: all that they print arrives, silence is told, and nothing of them stays."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mismatchscope.processes import FollowedProcess


def follow(program: str, **how: object) -> FollowedProcess:
    command = [sys.executable, "-u", "-c", program]
    return FollowedProcess(command, environment=dict(os.environ), **{"stderr": subprocess.STDOUT} | how)


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


def test_all_output_arrives_and_then_the_status() -> None:
    with follow("import os, sys; os.write(2, b'x' * 200_000); print('the end'); sys.exit(7)") as process:
        output = b"".join(process.output(1.0))
        assert process.returncode == 7
    assert output == b"x" * 200_000 + b"the end\n"


def test_standard_error_goes_where_it_is_sent(tmp_path: Path) -> None:
    program = "import os; os.write(2, b'to the log'); os.write(1, b'to us')"
    with open(tmp_path / "log", "wb") as log, follow(program, stderr=log) as process:
        assert b"".join(process.output(1.0)) == b"to us"
    assert (tmp_path / "log").read_bytes() == b"to the log"


def test_silence_is_told() -> None:
    with follow("import os, time; os.write(1, b'a'); time.sleep(0.6); os.write(1, b'b')") as process:
        chunks = list(process.output(0.1))
    assert b"".join(chunks) == b"ab"
    assert b"" in chunks[chunks.index(b"a") : chunks.index(b"b")]


SLEEPER = "import os, time; os.write(1, str(os.getpid()).encode()); time.sleep(60)"

ORPHAN = """
import os, time
pid = os.fork()
if pid == 0:
    time.sleep(60)
    os._exit(0)
print(pid)
"""


def test_a_child_that_holds_the_pipe_neither_keeps_us_nor_stays() -> None:
    began = time.monotonic()
    with follow(ORPHAN) as process:
        pid = int(b"".join(process.output(0.2)))
        assert process.returncode == 0 and not gone(pid)
    wait_until_gone(pid)
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_whatever_happens_here_ends_the_command(error: type[BaseException]) -> None:
    began = time.monotonic()
    pid = 0
    with pytest.raises(error), follow(SLEEPER) as process:
        for chunk in process.output(0.2):
            if chunk:
                pid = int(chunk)
                raise error
    assert gone(pid) and time.monotonic() - began < 20


def test_a_command_that_listens_is_let_go_in_its_own_time(tmp_path: Path) -> None:
    program = (
        f"import os, sys; os.write(1, b'here'); sys.stdin.read(); open({str(tmp_path / 'farewell')!r}, 'w').close()"
    )
    with follow(program, keep_stdin=True, grace_seconds=9.0) as process:
        assert next(chunk for chunk in process.output(0.2) if chunk) == b"here"
        assert not (tmp_path / "farewell").exists()
    assert process.returncode == 0 and (tmp_path / "farewell").exists()


def test_a_command_that_does_not_go_is_killed() -> None:
    with follow(SLEEPER, keep_stdin=True, grace_seconds=0.2) as process:
        assert any(process.output(0.2))
    assert process.returncode == -9


def test_a_command_that_cannot_be_started() -> None:
    with pytest.raises(FileNotFoundError):
        FollowedProcess(["/nowhere/python"], environment={}, stderr=subprocess.STDOUT)
