"""Commands that are followed: all that they print arrives, silence is told, and nothing of them stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import mismatchscope.processes
from mismatchscope.processes import FollowedProcess, run_to_end

pytestmark = pytest.mark.slow


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
reading, writing = os.pipe()
if os.fork() == 0:
    {moves}
    os.write(writing, str(os.getpid()).encode())
    time.sleep(60)
    os._exit(0)
print(os.read(reading, 20).decode())
"""


@pytest.mark.parametrize("moves", ["", "os.setsid()", "os.setsid(); os.fork() and os._exit(0)"])
def test_what_a_command_leaves_behind_ends_with_it(moves: str) -> None:
    """A child that holds the pipe for ever; one in a session of its own; one that nobody is the parent of."""
    began = time.monotonic()
    with follow(ORPHAN.format(moves=moves)) as process:
        pid = int(b"".join(process.output(0.2)))
        assert process.returncode == 0 and gone(pid)
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
    program = f"""
import os, signal, sys, time
def leave(*_):
    time.sleep(0.5)
    open({str(tmp_path / "farewell")!r}, "w").close()
    sys.exit(5)
signal.signal(signal.SIGTERM, leave)
os.write(1, b"here")
time.sleep(60)
"""
    with follow(program, grace_seconds=9.0) as process:
        assert next(chunk for chunk in process.output(0.2) if chunk) == b"here"
        assert not (tmp_path / "farewell").exists()
    assert process.returncode == 5 and (tmp_path / "farewell").exists()


def test_a_command_that_does_not_go_is_killed() -> None:
    program = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEPER
    with follow(program, grace_seconds=0.2) as process:
        assert any(process.output(0.2))
    assert process.returncode == -signal.SIGKILL


def test_a_command_that_cannot_be_started() -> None:
    with pytest.raises(FileNotFoundError):
        FollowedProcess(["/nowhere/python"], environment={}, stderr=subprocess.STDOUT)


RUNS_A_COMMAND = """
import os, signal, subprocess, sys
from mismatchscope.processes import FollowedProcess
print(os.getpid(), flush=True)
command = [sys.executable, "-c", sys.argv[1]]
with FollowedProcess(command, environment=dict(os.environ), stderr=2, grace_seconds=float(sys.argv[2])) as process:
    for chunk in process.output(0.2):
        os.write(1, chunk)
sys.exit(process.returncode)
"""

HOLDS_THE_INTERPRETER = """
import ctypes, os, subprocess, sys
child = "import os, time; os.setsid(); os.write(1, f'{os.getpid()} {os.getppid()} '.encode()); time.sleep(60)"
process = subprocess.Popen([sys.executable, "-c", child])
mutex = ctypes.create_string_buffer(256)
for _ in range(2):
    ctypes.PyDLL(None).pthread_mutex_lock(mutex)
"""


def start_parent(program: str, grace_seconds: float) -> tuple[subprocess.Popen[bytes], list[int]]:
    """A process that runs a program, and the ids of the program's child and of itself, which both hang."""
    parent = subprocess.Popen(
        [sys.executable, "-c", RUNS_A_COMMAND, program, str(grace_seconds)], stdout=subprocess.PIPE, bufsize=0
    )
    assert parent.stdout is not None
    assert int(parent.stdout.readline()) == parent.pid
    printed = b""
    while printed.count(b" ") < 2 and (chunk := parent.stdout.read(64)):
        printed += chunk
    return parent, [int(pid) for pid in printed.split()]


@pytest.mark.parametrize("grace_seconds", [0.0, 0.5])
def test_a_command_dies_with_its_parent_though_native_code_holds_the_interpreter(grace_seconds: float) -> None:
    parent, (child, command) = start_parent(HOLDS_THE_INTERPRETER, grace_seconds)
    with parent:
        parent.kill()
    for pid in (child, command):
        wait_until_gone(pid)


def test_a_command_dies_with_its_supervisor() -> None:
    parent, (child, command) = start_parent(HOLDS_THE_INTERPRETER, 0.0)
    with parent:
        supervisor = int(Path(f"/proc/{command}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(supervisor, signal.SIGKILL)
        assert parent.wait(20) == 256 - signal.SIGKILL
    wait_until_gone(command)
    os.kill(child, signal.SIGKILL)  # nobody's: it moved to a session of its own, and who watched it was killed


def test_a_parent_that_dies_before_its_supervisor_begins() -> None:
    """It then has another parent than the one it is told of, and the command does not run on."""
    program = "import os, time; os.write(1, b'here'); time.sleep(60)"
    reading, writing = os.pipe()
    supervisor = Path(mismatchscope.processes.__file__).with_name("supervisor.py")
    orphan = subprocess.Popen(
        [sys.executable, "-IS", supervisor, "1", str(writing), "0", sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        pass_fds=[writing],
    )
    os.close(reading)
    os.close(writing)
    orphan.communicate(timeout=20)
    assert orphan.returncode == -signal.SIGKILL


def test_a_command_has_the_signals_of_a_new_process() -> None:
    program = """
import signal
print(signal.pthread_sigmask(signal.SIG_BLOCK, []), signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)
print([line for line in open("/proc/self/status") if line.startswith("SigIgn")])
"""
    usual = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout
    with follow(program) as process:
        assert b"".join(process.output(1.0)) == usual


def test_a_command_is_followed_where_there_are_no_standard_streams(tmp_path: Path) -> None:
    program = f"""
import os, signal, subprocess, sys
for descriptor in (0, 1, 2):
    os.close(descriptor)
from mismatchscope.processes import run_to_end
done = run_to_end([sys.executable, "-c", "print('out'); raise SystemExit(7)"], environment=os.environ, timeout_s=60)
open({str(tmp_path / "done")!r}, "w").write(f"{{done.returncode}} {{done.stdout}}")
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    assert (tmp_path / "done").read_text() == "7 out\n"


def test_a_command_is_run_to_its_end() -> None:
    program = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    done = run_to_end([sys.executable, "-c", program], environment=os.environ, timeout_s=60)
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")


@pytest.mark.parametrize(
    ("program", "error"),
    [("import time; time.sleep(60)", "timed out"), ("while True: print('y' * 999)", "prints without end")],
)
def test_a_command_without_an_end_is_ended(program: str, error: str) -> None:
    with pytest.raises(subprocess.SubprocessError, match=error):
        run_to_end([sys.executable, "-c", program], environment=os.environ, timeout_s=2)


def test_a_command_outlives_the_thread_that_started_it() -> None:
    """The kernel's own signal at the death of a parent comes when that thread has ended."""
    started: list[FollowedProcess] = []
    thread = threading.Thread(target=lambda: started.append(follow("import time; time.sleep(1); print('done')")))
    thread.start()
    thread.join()
    with started[0] as process:
        assert b"".join(process.output(0.2)) == b"done\n" and process.returncode == 0
