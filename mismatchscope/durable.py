"""Files that are there as a whole or not at all, after a kill and after a power cut."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path


def write_atomic(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a file so that it is either absent, the old one, or whole.

    Where `durable`, that is true of the disk too when this returns: file and directory are synced. Leave it out for
    what no later run reads, and for what `sync_files` is called for. Raises `OSError`, when the disk is full say;
    the old file is then still there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as handle:
            handle.write(data)
            if durable:
                handle.flush()
                os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if durable:
        sync_directory(path.parent)


def sync_files(files: Iterable[Path]) -> None:
    """Put files that are written, and their names, on the disk. Many at once take a fraction of one by one."""
    directories = set()
    for file in files:
        directories.add(file.parent)
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    for directory in sorted(directories):
        sync_directory(directory)


def sync_directory(directory: Path) -> None:
    """Put the names of its files on the disk, where the file system knows how to."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
