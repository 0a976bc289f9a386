"""Temporary directories that are gone when their process is, even where that was killed.

    <temporary directory>/mismatchscope-<user id>/    this user's, closed to everybody else
        <name>/                                       what one caller has
        <name>.lock                                   held for as long as it has it

A killed process leaves both, and its lock is free: the next process that makes or opens something clears them away.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .errors import UsageError
from .locking import release, try_lock

_LOCK = ".lock"


@contextlib.contextmanager
def temporary_directory() -> Iterator[Path]:
    """An empty directory of the caller's own, removed with all that is in it; `OSError` where none can be made."""
    remove_abandoned()
    taken = _take_name()
    if taken is None:
        with tempfile.TemporaryDirectory(prefix="mismatchscope-", ignore_cleanup_errors=True) as directory:
            yield Path(directory)
        return
    path, lock = taken
    try:
        path.mkdir(mode=0o700)
        yield path
    finally:
        _remove(path, lock)


def remove_abandoned() -> None:
    """Remove the temporary directories of this user's processes that ended without doing so."""
    parent = _parent()
    if parent is None:
        return
    with contextlib.suppress(FileNotFoundError):  # another process removes it when it is empty
        for name in {entry.name.removesuffix(_LOCK) for entry in parent.iterdir()}:
            with contextlib.suppress(OSError, UsageError):  # what cannot be removed is no reason to keep the rest
                lock = try_lock(_lock_of(parent / name))
                if lock is not None:
                    _remove(parent / name, lock)


def _take_name() -> tuple[Path, int] | None:
    """A name that nothing has yet, and its lock; None where there is no place for it, or no locks."""
    while (parent := _make_parent()) is not None:
        path = parent / secrets.token_hex(6)
        try:
            lock = try_lock(_lock_of(path))
        except FileNotFoundError:
            continue  # the last that was in `parent` has just gone, and `parent` with it
        except OSError:
            return None
        if lock is None:
            continue  # `remove_abandoned` looks at it
        if _parent() is not None:  # the same one: with something in it, it stays
            return path, lock
        release(_lock_of(path), lock)
    return None


def _make_parent() -> Path | None:
    with contextlib.suppress(OSError):
        _parent_path().mkdir(mode=0o700)
    return _parent()


def _parent() -> Path | None:
    """The directory of this user's temporary directories; None where there is none that is this user's alone."""
    try:
        parent = _parent_path()
        status = parent.lstat()
    except OSError:
        return None
    private = stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o077 and status.st_uid == os.geteuid()
    return parent if private else None


def _parent_path() -> Path:
    return Path(tempfile.gettempdir(), f"mismatchscope-{os.geteuid()}")


def _lock_of(path: Path) -> Path:
    return path.with_name(f"{path.name}{_LOCK}")


def _remove(path: Path, lock: int) -> None:
    shutil.rmtree(path, ignore_errors=True)
    release(_lock_of(path), lock)
    with contextlib.suppress(OSError):  # not empty
        path.parent.rmdir()
