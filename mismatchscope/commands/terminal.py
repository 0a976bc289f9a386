"""How this process talks: stdout is data, stderr progress and errors, in colour where somebody watches."""

from __future__ import annotations

import shlex
import sys
import traceback
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..credentials import masked
from ..foreign_text import printable, printable_lines

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

    from ..progress import ProgressReporter


@dataclass
class Terminal:
    """Set by the switches that every verb takes, before or after its name, and by the verb."""

    quiet: bool = False
    verbose: bool = False
    no_color: bool = False
    debug: bool = False
    recorded: bool = False
    """What is printed is also in a file or in the exit code."""


terminal = Terminal()


def stdout() -> Console:
    return _console()


def stderr() -> Console:
    return _console(stderr=True)


def _console(stderr: bool = False) -> Console:
    """Where strings are shown as they are: no markup, no emoji codes, and nothing in them reaches the terminal raw.

    Where the layout matters, text is made printable before: what is spelled out takes more room. This is the net.
    """
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class SafeConsole(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else segment._replace(text=printable_lines(segment.text))

    no_color = terminal.no_color or None
    return SafeConsole(stderr=stderr, no_color=no_color, markup=False, emoji=False, highlight=False)


def write_document(text: str) -> None:
    """A document on stdout: UTF-8 as in a file, whatever the terminal's encoding."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode())


def progress() -> ProgressReporter:
    from ..progress import ProgressReporter

    return ProgressReporter(stderr(), quiet=terminal.quiet)


def spinner(what: str) -> AbstractContextManager[object]:
    """While something without steps goes on; nothing where nobody watches."""
    console = stderr()
    return console.status(what) if console.is_terminal and not terminal.quiet else nullcontext()


def show_error(message: str, hint: str | None, log_tail: str = "") -> None:
    """What, why, next command; a traceback with --debug alone."""
    from rich.text import Text

    console = stderr()
    if terminal.debug:
        console.print(printable_lines(masked(traceback.format_exc())), soft_wrap=True)
    if log_tail:
        console.print(printable_lines(log_tail), soft_wrap=True, style="dim")
    console.print(Text.assemble(("error:", "bold red"), " ", printable(message)), soft_wrap=True)
    if hint:
        console.print(Text.assemble((" next:", "bold"), " ", printable(hint)), soft_wrap=True)


def show_note(note: str) -> None:
    """What is worth knowing and changes nothing."""
    from rich.text import Text

    stderr().print(Text.assemble(("note:", "bold yellow"), " ", printable(note)), soft_wrap=True)


def command_line() -> str:
    """What reproduces this run."""
    return shlex.join(["mismatchscope", *sys.argv[1:]])
