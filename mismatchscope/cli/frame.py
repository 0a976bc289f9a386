"""What every verb has in common: the switches, one clear message an error, the exit code, where output goes."""

from __future__ import annotations

import functools
import inspect
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import MismatchScopeError

if TYPE_CHECKING:
    from rich.console import Console

    from ..progress import ProgressReporter

app = typer.Typer(
    name="mismatchscope",
    help="Is the policy that samples still the policy that trains?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@dataclass
class Terminal:
    """How this process talks; set by the options that every verb takes, before or after its name."""

    quiet: bool = False
    verbose: bool = False
    no_color: bool = False
    debug: bool = False


terminal = Terminal()


def main() -> None:
    """The installed command."""
    app()


def _switch(name: str, help: str, *flags: str) -> inspect.Parameter:
    def note(value: bool) -> bool:
        if value:
            setattr(terminal, name, True)
        return value

    option = typer.Option(f"--{name.replace('_', '-')}", *flags, help=help, callback=note)
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, keyword, default=False, annotation=Annotated[bool, option])


_SWITCHES = [
    _switch("quiet", "No progress.", "-q"),
    _switch("verbose", "Every measure.", "-v"),
    _switch("no_color", "Plain text, as NO_COLOR does."),
    _switch("debug", "Show the traceback of an error."),
]


def with_switches(function: Callable[..., None]) -> Callable[..., None]:
    """The function with the switches of `Terminal` among its options; their callbacks have done their work."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        for switch in _SWITCHES:
            kwargs.pop(switch.name)
        function(*args, **kwargs)

    signature = inspect.signature(function, eval_str=True)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *_SWITCHES])
    return run


def verb(function: Callable[..., None], group: typer.Typer = app, name: str | None = None) -> Callable[..., None]:
    """Register a verb whose errors become one clear message and the right exit code."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except MismatchScopeError as error:
            _show_error(error.message, error.hint, error.log_tail)
            raise typer.Exit(error.exit_code) from None
        except typer.Abort:  # an interrupt while a question waits for its answer
            _show_error("Interrupted.", None)
            raise typer.Exit(130) from None
        except KeyboardInterrupt:
            resumable = "resume" in kwargs
            message = "Interrupted. What was finished is kept." if resumable else "Interrupted."
            _show_error(message, "the same command with --resume goes on" if resumable else None)
            raise typer.Exit(130) from None
        except typer.Exit:
            raise
        except BrokenPipeError:
            _discard_stdout()
            raise typer.Exit(128 + signal.SIGPIPE) from None
        except Exception as error:
            # Never the message: it may quote a prompt or a key.
            where = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(where.filename).name}:{where.lineno}"
            _show_error(f"Unexpected {type(error).__name__} at {place}.", "add --debug to see all of it")
            raise typer.Exit(3) from None

    return group.command(name)(with_switches(run))


def _version(value: bool) -> None:
    if value:
        from .. import __version__

        sys.stdout.write(f"mismatchscope {__version__}\n")
        raise typer.Exit


@app.callback()
@with_switches
def common(
    version: Annotated[bool, typer.Option("--version", help="Show the version.", callback=_version)] = False,
) -> None:
    """Is the policy that samples still the policy that trains?"""


def progress() -> ProgressReporter:
    from ..progress import ProgressReporter

    return ProgressReporter(stderr(), quiet=terminal.quiet)


def working(what: str) -> AbstractContextManager[object]:
    """A spinner while something without steps goes on; nothing where nobody watches."""
    console = stderr()
    return console.status(what) if console.is_terminal and not terminal.quiet else nullcontext()


def stdout() -> Console:
    from rich.console import Console

    class Answer(Console):
        def on_broken_pipe(self) -> None:
            """`… | head` has read enough: go on silently to the exit code that the verdict gives."""
            self.quiet = True
            _discard_stdout()

    return Answer(no_color=terminal.no_color or None, highlight=False)


def stderr() -> Console:
    from rich.console import Console

    return Console(stderr=True, no_color=terminal.no_color or None, highlight=False)


def _discard_stdout() -> None:
    """Nobody reads it any more; without this the interpreter complains once again when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show_error(message: str, hint: str | None, log_tail: str = "") -> None:
    console = stderr()
    if terminal.debug:
        console.print(traceback.format_exc(), markup=False, soft_wrap=True)
    if log_tail:
        console.print(log_tail, markup=False, soft_wrap=True, style="dim")
    console.print(f"[bold red]error:[/] {_escaped(message)}", soft_wrap=True)
    if hint:
        console.print(f" [bold]next:[/] {_escaped(hint)}", soft_wrap=True)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def command() -> str:
    """The command line that reproduces this run."""
    return shlex.join(["mismatchscope", *sys.argv[1:]])
