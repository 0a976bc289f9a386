"""What the file system refuses, as a sentence that names the file: how an `OSError` leaves a room.

A disk is full or broken, a directory read-only, a name too long, a file gone since it was seen: none of it is a
fault of ours, and any call that touches a file can meet it. So the ways into a room that works on somebody's files
are within `file_errors`, once, in place of a test before every call.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import DiskFullError, MismatchScopeError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The `errno` of an `OSError` that a `DiskFullError` stands for."""

# Of pipes, sockets and processes, not of files: who meets one of these has to know what to do.
_OF_OTHERS = (BrokenPipeError, ConnectionError, TimeoutError, ChildProcessError, InterruptedError, BlockingIOError)


@contextmanager
def file_errors(problem: str, hint: str, *, kind: type[MismatchScopeError] = MismatchScopeError) -> Iterator[None]:
    """Raise `kind` in place of an `OSError` about a file, and `DiskFullError` where there is no room.

    `problem` is a sentence without its reason ("The trace cannot be written"), to which the reason and the file are
    added, and `hint` is what helps. It is a decorator too.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or isinstance(error, _OF_OTHERS):
            raise
        sentence = f"{problem}: {refusal(error)}."
        if error.errno in NO_ROOM:
            raise DiskFullError(sentence, hint="make room, then repeat the command") from error
        raise kind(sentence, hint=hint) from error


def refusal(error: OSError) -> str:
    """What was refused and of which file, as a clause: "Permission denied (out/behavior)"."""
    why = error.strerror or str(error)
    named = isinstance(error.filename, str | os.PathLike) and os.fspath(error.filename)
    return f"{why} ({named})" if named else why
