"""Standard streams that cannot change how a command ends.

A disk can be full, a reader gone, an encoding too small, a stream closed: whoever prints should not have to know.
So writes never fail here. Why something was lost is kept, and the end of the command decides what it means.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from typing_extensions import Buffer

_LARGEST = 1000
_LEAST_COLUMNS = 40
"""With fewer, tables lose their cells; a terminal that is narrower wraps the lines itself."""


class Sink(io.RawIOBase):
    """The file below a standard stream. It keeps the first failure, and drops everything after it."""

    def __init__(self, descriptor: int, failure: OSError | None = None) -> None:
        super().__init__()
        self._descriptor = descriptor
        self.failure = failure

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: Buffer) -> int:
        view = memoryview(data).cast("B")
        while self.failure is None:
            try:
                return os.write(self._descriptor, view)
            except BlockingIOError:  # a pipe that its reader made so
                select.select([], [self._descriptor], [])
            except OSError as error:
                self.failure = error
        return len(view)


def prepare() -> Sink:
    """Replace this process's standard streams; returns the file below stdout.

    Call it first: a file that is opened while a standard descriptor is closed would take its number, and what C
    libraries print would end in it.
    """
    closed = [descriptor for descriptor in range(3) if not _is_open(descriptor)]
    for descriptor in closed:
        null = os.open(os.devnull, os.O_RDWR)
        if null != descriptor:
            os.dup2(null, descriptor)
            os.close(null)
        os.set_inheritable(descriptor, True)
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115 - for as long as the process lives
    missing = OSError(errno.EBADF, os.strerror(errno.EBADF))
    out, err = (Sink(descriptor, missing if descriptor in closed else None) for descriptor in (1, 2))
    sys.stdout, sys.stderr = _stream(out, sys.stdout), _stream(err, sys.stderr)
    for name, least in (("COLUMNS", _LEAST_COLUMNS), ("LINES", 1)):
        _bound(name, least)
    return out


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _stream(sink: Sink, old: TextIO | None) -> TextIO:
    """Text in the encoding of the old stream, and as soon; what the encoding lacks is spelled out, `\\u03b1`."""
    encoding, at_once = "utf-8", True
    if isinstance(old, io.TextIOWrapper):
        old.flush()
        encoding, at_once = old.encoding, old.line_buffering or old.write_through
    file = io.BufferedWriter(sink)
    return io.TextIOWrapper(file, encoding=encoding, errors="backslashreplace", line_buffering=at_once)


def _bound(name: str, least: int) -> None:
    """Bring the size that the environment claims into what a terminal can have; forget what is none."""
    claimed = os.environ.get(name, "")
    if claimed.isascii() and claimed.isdigit() and int(claimed[:9]):
        os.environ[name] = str(min(max(int(claimed[:9]), least), _LARGEST))
    else:
        os.environ.pop(name, None)
