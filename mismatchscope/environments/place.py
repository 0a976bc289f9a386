"""Where environments are kept, and that nobody else writes there while one is made or removed."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from ..errors import MismatchScopeError, UsageError
from ..locking import holder_of, release, try_lock
from ..ownership import make_private, why_unsafe

OWN_PLACE = "set MISMATCHSCOPE_HOME to a directory that is yours alone, with room for it"


def home() -> Path:
    """Where environments and their logs are: $MISMATCHSCOPE_HOME, else the user's cache directory.

    Raises `UsageError` for a user who has no home directory, in a container say, or for ~NAME of nobody.
    """
    try:
        if chosen := os.environ.get("MISMATCHSCOPE_HOME"):
            return Path(chosen).expanduser().absolute()
        base = os.environ.get("XDG_CACHE_HOME")
        return (Path(base) if base else Path.home() / ".cache").absolute() / "mismatchscope"
    except RuntimeError as error:
        raise UsageError(
            f"Nothing says where engine environments are kept: {error}", hint="export MISMATCHSCOPE_HOME=DIRECTORY"
        ) from None


def new_log(name: str, version: str) -> Path:
    """Where the output of a creation that begins now is kept."""
    logs = home() / "logs"
    make_private(logs)
    return logs / f"env-create-{name}-{version}-{datetime.now().strftime('%Y%m%d-%H%M%S')}.log"


@contextlib.contextmanager
def locked_environment(path: Path, on_held: Callable[[str, float], None]) -> Iterator[int]:
    """Hold the lock of one environment, given as a file descriptor that its commands inherit.

    The kernel frees it with the last process that has it, so a killed creator leaves no stale lock. While another
    process has it, `on_held` is called again and again, with who that is and the seconds that passed. Raises
    `MismatchScopeError` where nothing can be written, or others could write too.
    """
    directory = path.parent
    lock_path = directory / f".{path.name}.lock"
    try:
        make_private(directory)
        if reason := why_unsafe(directory):
            raise MismatchScopeError(f"What is in {directory} would run, and {reason}.", hint=OWN_PLACE)
        if path.is_symlink():
            raise MismatchScopeError(f"{path} is a link, no environment that was made here.", hint=f"rm {path}")
        began = time.monotonic()
        while (lock := try_lock(lock_path)) is None:
            on_held(str(holder_of(lock_path) or "another process"), time.monotonic() - began)
    except OSError as error:
        why = f"Nothing can be written in {directory}: {error.strerror}."
        raise MismatchScopeError(why, hint=OWN_PLACE) from None
    try:
        yield lock
    finally:
        release(lock_path, lock)


@contextlib.contextmanager
def closed_to_others() -> Iterator[None]:
    """Let nobody else write what this process and its commands make, whatever the umask was."""
    before = os.umask(0o022)
    os.umask(before | 0o022)
    try:
        yield
    finally:
        os.umask(before)
