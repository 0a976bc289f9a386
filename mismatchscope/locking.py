"""A lock on a file, which says who holds it.

The lock is the kernel's (`flock`): it ends with the process that holds it, however that ends, so that no file left
behind ever blocks anybody. The file's content is for people alone.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import shlex
import socket
import stat
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from .credentials import masked
from .errors import LockedError, UsageError
from .ownership import is_trusted

DIRECTORY_LOCK = ".mismatchscope.lock"
"""The lock of a directory that a run writes to, in that directory."""

_MODE = 0o644  # another user may read who holds it
_MAX_BYTES = 4096
_OTHER_KINDS = {errno.ELOOP: "is a symbolic link", errno.EISDIR: "is a directory", errno.ENXIO: "is a socket"}
_NO_LOCKS_HERE = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)


@dataclass(frozen=True)
class Holder:
    """Who has a lock; `since` is an ISO time with its zone."""

    pid: int
    host: str
    command: str
    since: str

    @classmethod
    def this_process(cls) -> Holder:
        command = masked(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]))
        since = datetime.now().astimezone().isoformat(timespec="seconds")
        return cls(os.getpid(), socket.gethostname(), command[:1000], since)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since} ({self.command})"


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock on the file `path`; where the file system has no locks, hold nothing and warn.

    `what` is locked, for the message of the `LockedError` that is raised where another process has it. Raises what
    `try_lock` raises.
    """
    try:
        lock = try_lock(path)
    except OSError as error:
        if error.errno not in _NO_LOCKS_HERE:
            raise
        logging.getLogger(__name__).warning("Nothing keeps others out of %s: no locks in %s.", what, path.parent)
        yield
        return
    if lock is None:
        raise LockedError(
            f"{what} is in use by {holder_of(path) or 'another process'}.", hint="wait for it, or end it"
        )
    try:
        yield
    finally:
        release(path, lock)


def try_lock(path: Path) -> int | None:
    """Take the lock on the file `path`; its descriptor, to be given to `release`. None where another has it.

    Raises `UsageError` for something in its place that is no lock, and `OSError` where the file cannot be made or
    the file system has no locks.
    """
    while True:
        lock = _open(path)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, lock):
                _check_owner(path, lock)
                _write_holder(lock)
                return lock
        except BlockingIOError:
            os.close(lock)
            return None
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)  # who had it removed the file just now


def release(path: Path, lock: int) -> None:
    """Give a lock back that `try_lock` took, and remove its file."""
    if _is_at(path, lock):
        path.unlink(missing_ok=True)
    os.close(lock)


def holder_of(path: Path) -> Holder | None:
    """Who wrote the lock file last; None where it does not say."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            content = json.loads(file.read(_MAX_BYTES))
        return Holder(int(content["pid"]), *(str(content[key]) for key in ("host", "command", "since")))
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def _open(path: Path) -> int:
    """The descriptor of the lock file. Raises `UsageError` for anything else in its place, which is left alone."""
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        try:
            lock = os.open(path, flags | os.O_RDWR | os.O_CREAT, _MODE)
        except PermissionError:
            if not os.path.lexists(path):
                raise
            lock = os.open(path, flags | os.O_RDONLY)  # another user's, who may hold it
    except OSError as error:
        if error.errno in _OTHER_KINDS:
            raise _no_lock(path, _OTHER_KINDS[error.errno]) from None
        raise
    if not stat.S_ISREG(os.fstat(lock).st_mode):
        os.close(lock)
        raise _no_lock(path, "is no regular file")
    return lock


def _check_owner(path: Path, lock: int) -> None:
    status = os.fstat(lock)
    if not is_trusted(status.st_uid):
        raise _no_lock(path, "belongs to another user")
    if status.st_nlink > 1:
        raise _no_lock(path, "has another name too")


def _write_holder(lock: int) -> None:
    with contextlib.suppress(OSError):  # a full disk is somebody else's to report
        os.ftruncate(lock, 0)
        os.pwrite(lock, json.dumps(asdict(Holder.this_process())).encode(), 0)


def _no_lock(path: Path, reason: str) -> UsageError:
    return UsageError(f"The lock file {path} {reason}, so it is not used.", hint=f"remove {path}")


def _is_at(path: Path, lock: int) -> bool:
    """Whether the file behind a descriptor is still the one of that name."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(lock))
    except FileNotFoundError:
        return False
