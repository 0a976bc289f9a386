"""How a run is told to end: Ctrl-C, SIGTERM from `kill` or a scheduler, SIGHUP from a terminal that closes.

All three end it in the same order: workers first, what was finished kept, then one sentence. A signal that was
ignored when this process was started stays ignored, as a shell has SIGINT in the background, and `nohup` SIGHUP.
"""

from __future__ import annotations

import signal
from types import FrameType

_ENDING = (signal.SIGTERM, signal.SIGHUP)


class Interruption(KeyboardInterrupt):
    """An interrupt by another signal than Ctrl-C's."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def prepare() -> None:
    """Let these signals raise `Interruption`. Python itself makes SIGINT a `KeyboardInterrupt`."""
    for number in _ENDING:
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _interrupt)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, a worker that died would have no exit status


def signal_of(error: BaseException | None) -> signal.Signals:
    """The signal that an interrupt stands for."""
    return signal.Signals(error.number) if isinstance(error, Interruption) else signal.SIGINT


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interruption(number)
