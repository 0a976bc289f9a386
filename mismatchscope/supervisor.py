"""The process between this one and a command that it runs, so that neither outlives the other:

    python -I -S supervisor.py PARENT STATUS GRACE COMMAND…

It does nothing but wait, so it is there when the command holds its interpreter in native code. It ends the command
when the process PARENT is gone or when told to (SIGTERM): with SIGTERM first, and SIGKILL when told again or after
GRACE seconds, fewer where the parent is gone and nobody waits. Whatever the command started is killed once the
command has ended, also what has moved to a session of its own: the kernel gives orphans to this process
(`PR_SET_CHILD_SUBREAPER`, prctl(2)). Should this process be killed itself, the kernel kills the command
(`PR_SET_PDEATHSIG`).

It ends as the command did, by the same signal or with the same status. Where the command cannot be started, its
errno is written to the descriptor STATUS, which is closed once it runs.

This file runs alone, with nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
import time
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_TELLING = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
_WAITED_FOR = {signal.SIGCHLD, *_TELLING}
_POLL_SECONDS = 0.25
_ORPHAN_GRACE_SECONDS = 3.0
_KILL_SECONDS = 10.0
"""After so long a killed process that is still there hangs in the kernel, and nothing can be done about it."""


class _Command:
    """The command, as this process's child, with all that it left to it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.status: int | None = None  # as waitpid gives it

    def collect(self) -> bool:
        """Take in the children that have ended; whether there are others."""
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == self.pid:
                    self.status = status
                if pid == 0:
                    return True
        except ChildProcessError:
            return False

    def kill_all(self) -> None:
        """Kill the command and what it started. What a killed process leaves behind comes to us, and is next."""
        deadline = time.monotonic() + _KILL_SECONDS
        while self.collect() and time.monotonic() < deadline:
            for pid in _descendants(os.getpid()):
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.002)


def end_with(parent: int) -> None:
    """Let the kernel kill this process when that one, which forked it, ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # killed before the line above
        os._exit(1)


def main(arguments: list[str]) -> None:
    parent, status_descriptor, grace_seconds = int(arguments[0]), int(arguments[1]), float(arguments[2])
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, children would end without a status
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED_FOR)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    supervisor = os.getpid()
    pid = os.fork()
    if pid == 0:
        end_with(supervisor)
        _execute(arguments[3:], status_descriptor, mask)
    os.close(status_descriptor)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):  # the command's alone
        os.dup2(null, descriptor)
    command = _Command(pid)
    _wait(command, parent, grace_seconds)
    command.kill_all()
    _end_with(command.status)


def _execute(command: list[str], status_descriptor: int, mask: set[int]) -> None:
    """Become the command, with the signals that this process was started with."""
    os.set_inheritable(status_descriptor, False)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        os.write(status_descriptor, str(error.errno).encode())
    finally:
        os._exit(127)


def _wait(command: _Command, parent: int, grace_seconds: float) -> None:
    """Until the command has ended, or has to."""
    deadline: float | None = None
    while True:
        command.collect()
        if command.status is not None or (deadline is not None and time.monotonic() >= deadline):
            return
        received = signal.sigtimedwait(_WAITED_FOR, _POLL_SECONDS)
        told = received is not None and received.si_signo in _TELLING
        orphaned = os.getppid() != parent
        if deadline is not None:
            if told:
                return
        elif told or orphaned:
            deadline = time.monotonic() + (min(grace_seconds, _ORPHAN_GRACE_SECONDS) if orphaned else grace_seconds)
            if grace_seconds:
                os.kill(command.pid, signal.SIGTERM)


def _descendants(ancestor: int) -> list[int]:
    """Processes below one, by what /proc says of every process's parent."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
                children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [ancestor]
    for pid in found:
        found += children.get(pid, [])
    return found[1:]


def _end_with(status: int | None) -> None:
    code = -signal.SIGKILL if status is None else os.waitstatus_to_exitcode(status)
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the command has left the one that matters
        with contextlib.suppress(OSError):
            signal.signal(-code, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {-code})
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main(sys.argv[1:])
