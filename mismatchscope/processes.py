"""Run a command under a supervisor: follow what it prints, and leave nothing of it behind however this ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Self

_SUPERVISOR = (sys.executable, "-I", "-S", str(Path(__file__).with_name("supervisor.py")))
_LEEWAY_SECONDS = 5.0
"""What the supervisor is given to end what it has been told to end."""

_MAX_OUTPUT_BYTES = 2**20


class FollowedProcess:
    """A command whose standard output is followed. Use it with `with`: leaving ends the command and all it started.

    So does the end of this process, however it comes, also where the command holds its interpreter in native code:
    `supervisor` sees to it. Both have a session of their own, so that Ctrl-C reaches this process alone, which then
    ends the command in order. `stderr` is a file, or `subprocess.STDOUT` to follow it too. `OSError` when the
    command cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        stderr: BinaryIO | int,
        keep_stdin: bool = False,
        inherited: Sequence[int] = (),
        grace_seconds: float = 0.0,
    ) -> None:
        """`grace_seconds`: what it has to end after a SIGTERM, before it and all it started are killed.

        `keep_stdin`: its standard input is open until `end`, or until this process is gone.
        """
        self._grace_seconds = grace_seconds
        reading, status = _status_pipe()
        with open(reading, "rb") as failure:
            try:
                self._process: subprocess.Popen[bytes] = subprocess.Popen(
                    [
                        *_SUPERVISOR,
                        *(str(os.getpid()), str(status), str(grace_seconds)),
                        *command,
                    ],
                    stdin=subprocess.PIPE if keep_stdin else subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    env=environment,
                    pass_fds=(*inherited, status),
                    start_new_session=True,
                )
            finally:
                os.close(status)
            try:
                errno = failure.read()
                if errno:
                    raise OSError(int(errno), os.strerror(int(errno)), command[0])
            except BaseException:
                self.end()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.end()

    @property
    def returncode(self) -> int:
        """Its exit status, waited for; negative the signal that ended it."""
        return self._process.wait()

    def output(self, tick_seconds: float) -> Iterator[bytes]:
        """What it prints, as it comes; an empty chunk after each `tick_seconds` of silence.

        Ends with the pipe, or when the command is gone.
        """
        stdout = self._process.stdout
        assert stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while True:
                alive = self._process.poll() is None  # asked before reading: what it wrote before it died is there
                if selector.select(timeout=tick_seconds if alive else 0):
                    chunk = os.read(stdout.fileno(), 65536)
                    if not chunk:
                        return
                    yield chunk
                elif not alive:
                    return
                else:
                    yield b""

    def write(self, data: bytes) -> None:
        """Put `data` on its standard input. One that has died does not read it, which its exit status will say."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            os.write(self._process.stdin.fileno(), data)

    def end(self) -> None:
        """Let it go in its grace; then what is left of it and of all that it started is killed."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(self._grace_seconds + _LEEWAY_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        finally:  # also on a second interrupt
            self._kill()
            if self._process.stdout is not None:
                self._process.stdout.close()

    def _kill(self) -> None:
        try:
            self._process.send_signal(signal.SIGTERM)  # told again, the supervisor does not wait
            self._process.wait(_LEEWAY_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        finally:  # where it was stopped or killed itself
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def run_to_end(
    command: Sequence[str], *, environment: Mapping[str, str], timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Run a command and return its status and what it printed.

    Raises `OSError` when it cannot be started, `subprocess.TimeoutExpired` after `timeout_s`, and
    `subprocess.SubprocessError` when it prints without end.
    """
    deadline, printed = time.monotonic() + timeout_s, bytearray()
    with (
        tempfile.TemporaryFile() as stderr,
        FollowedProcess(command, environment=environment, stderr=stderr) as process,
    ):
        for chunk in process.output(tick_seconds=0.25):
            printed += chunk
            if time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired(command, timeout_s)
            if max(len(printed), os.fstat(stderr.fileno()).st_size) > _MAX_OUTPUT_BYTES:
                raise subprocess.SubprocessError(f"{command[0]} prints without end")
        status = process.returncode
        stderr.seek(0)
        texts = (bytes(text).decode(errors="replace") for text in (printed, stderr.read(_MAX_OUTPUT_BYTES)))
    return subprocess.CompletedProcess(command, status, *texts)


def open_log(path: Path) -> BinaryIO:
    """A log to add to, which its owner alone may read: what an engine prints may quote prompts, and pip a key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    log = open(path, "ab", opener=partial(os.open, mode=0o600))  # noqa: SIM115 - the caller's to close
    with contextlib.suppress(PermissionError):  # somebody else's file, who decides who reads it
        os.fchmod(log.fileno(), 0o600)
    return log


def _status_pipe() -> tuple[int, int]:
    """A pipe whose writing end is above the standard streams, which are replaced in the supervisor."""
    reading, writing = os.pipe()
    try:
        return reading, fcntl.fcntl(writing, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(writing)
