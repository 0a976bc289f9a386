"""How this process talks: stdout is data, stderr progress and errors, in colour where somebody watches."""

from __future__ import annotations

import os
import shlex
import sys
import traceback
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..credentials import masked

if TYPE_CHECKING:
    from rich.console import Console

    from ..progress import ProgressReporter


@dataclass
class Terminal:
    """Set by the switches that every verb takes, before or after its name."""

    quiet: bool = False
    verbose: bool = False
    no_color: bool = False
    debug: bool = False


terminal = Terminal()


def stdout() -> Console:
    from rich.console import Console

    class Output(Console):
        def on_broken_pipe(self) -> None:
            """`… | head` has read enough: go on silently to the exit code that the verdict gives."""
            self.quiet = True
            discard_stdout()

    return Output(no_color=terminal.no_color or None, highlight=False)


def stderr() -> Console:
    from rich.console import Console

    return Console(stderr=True, no_color=terminal.no_color or None, highlight=False)


def discard_stdout() -> None:
    """Nobody reads it any more; without this the interpreter complains once again when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def progress() -> ProgressReporter:
    from ..progress import ProgressReporter

    return ProgressReporter(stderr(), quiet=terminal.quiet)


def spinner(what: str) -> AbstractContextManager[object]:
    """While something without steps goes on; nothing where nobody watches."""
    console = stderr()
    return console.status(what) if console.is_terminal and not terminal.quiet else nullcontext()


def show_error(message: str, hint: str | None, log_tail: str = "") -> None:
    """What, why, next command; a traceback with --debug alone."""
    from rich.markup import escape

    console = stderr()
    if terminal.debug:
        console.print(masked(traceback.format_exc()), markup=False, soft_wrap=True)
    if log_tail:
        console.print(log_tail, markup=False, soft_wrap=True, style="dim")
    console.print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)
    if hint:
        console.print(f" [bold]next:[/] {escape(hint)}", soft_wrap=True)


def command_line() -> str:
    """What reproduces this run."""
    return shlex.join(["mismatchscope", *sys.argv[1:]])
