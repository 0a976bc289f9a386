"""How long, and in how much memory, a chat template may work on one chat.

A template is a program that came with a model. Jinja's sandbox keeps it from files and processes, not from loops
within loops, nor from `'x' * 10**10`. Loops are interrupted by an exception. What is computed within one call of
native code sees none, so a timer of the kernel ends the process, whose parent says why.
"""

from __future__ import annotations

import ctypes
import resource
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import ClassVar

SECONDS = 5.0
"""For a chat of any length; templates take milliseconds."""

SECONDS_TO_THE_END = 5.0
"""After the exception, until the process is ended."""

CHARACTERS_A_SECOND = 100_000
BYTES, BYTES_A_CHARACTER = 2**30, 256

KILLED_BY = signal.SIGVTALRM
"""The signal that ends a process whose template does not end. Nothing else sends it."""

OTHER_TEMPLATE = "see chat_template.jinja and tokenizer_config.json of the model, or give prompt_token_ids"


class EndlessTemplateError(BaseException):
    """The time is over. Whoever takes any exception for an answer of the template must not take this one."""


@contextmanager
def rendering_limits(characters: int) -> Iterator[None]:
    """Bound what is done with a chat of so many characters, in the main thread.

    Raises `EndlessTemplateError` when the time is over, and `MemoryError` where the memory is.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread gets signals
        return
    seconds = SECONDS + characters / CHARACTERS_A_SECOND
    handler = signal.signal(signal.SIGALRM, _end)
    timer = _Timer(seconds + SECONDS_TO_THE_END, KILLED_BY)
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    _lower(resource.RLIMIT_DATA, _data_bytes() + BYTES + BYTES_A_CHARACTER * characters)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        timer.delete()
        resource.setrlimit(resource.RLIMIT_DATA, limits)
        signal.signal(signal.SIGALRM, handler)


def _end(number: int, frame: FrameType | None) -> None:
    raise EndlessTemplateError


def _lower(kind: int, limit: int) -> None:
    soft, hard = resource.getrlimit(kind)
    known = [each for each in (soft, hard) if each != resource.RLIM_INFINITY]
    resource.setrlimit(kind, (min(limit, *known) if known else limit, hard))


def _data_bytes() -> int:
    """What counts towards RLIMIT_DATA now: the sixth number of statm (proc(5)), in pages."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])
    return pages * resource.getpagesize()


class _Timer:
    """Sends this process a signal after some seconds, whatever it is doing then (timer_create(2))."""

    class _Event(ctypes.Structure):
        _fields_: ClassVar = [
            ("value", ctypes.c_void_p),
            ("number", ctypes.c_int),
            ("notify", ctypes.c_int),  # 0: SIGEV_SIGNAL
            ("rest", ctypes.c_char * 48),
        ]

    class _Times(ctypes.Structure):
        _fields_: ClassVar = [
            (name, ctypes.c_long) for name in ("interval", "interval_ns", "seconds", "nanoseconds")
        ]

    def __init__(self, seconds: float, number: int) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._timer = ctypes.c_void_p()
        event = self._Event(number=number)
        clock = ctypes.c_int(time.CLOCK_MONOTONIC)
        if self._libc.timer_create(clock, ctypes.byref(event), ctypes.byref(self._timer)):
            raise OSError(ctypes.get_errno(), "timer_create")
        times = self._Times(seconds=int(seconds), nanoseconds=int(seconds % 1 * 1e9))
        self._libc.timer_settime(self._timer, 0, ctypes.byref(times), None)

    def delete(self) -> None:
        self._libc.timer_delete(self._timer)
