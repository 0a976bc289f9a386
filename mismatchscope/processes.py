"""Run a command in a session of its own: follow what it prints, and leave nothing of it behind."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, Self


class FollowedProcess:
    """A command whose standard output is followed. Use it with `with`: leaving ends the command and all it started.

    It has a session of its own, so that Ctrl-C reaches this process alone, which then ends the command in order.
    `stderr` is a file, or `subprocess.STDOUT` to follow it too. `OSError` when the command cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: dict[str, str],
        stderr: BinaryIO | int,
        keep_stdin: bool = False,
        inherited: Sequence[int] = (),
        grace_seconds: float = 0.0,
    ) -> None:
        """`keep_stdin`: its standard input is open until `end`, which tells it so to go within `grace_seconds`."""
        self._grace_seconds = grace_seconds
        self._process: subprocess.Popen[bytes] = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if keep_stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,  # a pipe: a command whose parent was killed ends at its next line
            stderr=stderr,
            env=environment,
            pass_fds=inherited,
            start_new_session=True,
        )

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

        Ends with the pipe, or when the command is gone: a process that it forked may hold the pipe open for ever.
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
        """Let it go, if the end of its standard input tells it to; then kill what is left of its session."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            if self._grace_seconds:
                self._process.wait(self._grace_seconds)
        except subprocess.TimeoutExpired:
            pass
        finally:  # also on a second interrupt
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
