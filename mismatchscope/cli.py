"""The app: its switches, one error -> one message and one exit code, and the verbs. What they do is in `commands`.

Exit codes: 0 pass, 1 a gate failed, 2 usage, 3 failure, 4 inconclusive or not comparable, 130 interrupted
(128 and the number of the signal: 143 by SIGTERM).
Trouble with what is printed changes none of them, except that a document which was all a command had to give is a
failure when it is lost. A reader that leaves early, as `head` does, has what it wanted: that is no trouble at all.
"""

from __future__ import annotations

import errno
import functools
import inspect
import signal
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from .commands import (
    analyze,
    audit,
    compare,
    diagnose,
    doctor,
    env,
    gate,
    interruption,
    probe,
    probe_weights,
    report,
    rollout,
    score,
    streams,
)
from .commands.interruption import signal_of
from .commands.terminal import show_error, terminal
from .errors import MismatchScopeError, UsageError, unexpected

app = typer.Typer(
    name="mismatchscope",
    help="Is the policy that samples still the policy that trains?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """The installed command."""
    interruption.prepare()
    out = streams.prepare()
    code = _run()
    sys.stdout.flush()
    lost = out.failure
    if code == 0 and lost is not None and lost.errno != errno.EPIPE and not terminal.recorded:
        show_error(f"stdout cannot be written: {lost.strerror}.", "write elsewhere, with -o or > FILE")
        code = 3
    sys.exit(code)


def _run() -> int:
    try:
        return app(standalone_mode=False) or 0
    except typer.Abort as error:
        return _interrupted(error.__context__, resumable=False)
    except Exception as error:
        # Wrong arguments. typer says so in classes that it does not export.
        if not hasattr(error, "format_message"):
            raise
        if type(error).__name__ != "NoArgsIsHelpError":  # its help is printed already
            context = getattr(error, "ctx", None)
            show_error(error.format_message(), f"{context.command_path if context else app.info.name} --help")
        return 2


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


def _with_switches(function: Callable[..., None]) -> Callable[..., None]:
    """The function with the switches of `Terminal` among its options; their callbacks have done their work."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        for switch in _SWITCHES:
            kwargs.pop(switch.name)
        function(*args, **kwargs)

    signature = inspect.signature(function, eval_str=True)
    vars(run)["__signature__"] = signature.replace(parameters=[*signature.parameters.values(), *_SWITCHES])
    return run


# What these print is in their files or their exit code too: output that is lost loses nothing.
_RECORDED = (audit.command, rollout.command, score.command, compare.command, analyze.command, gate.command)


def _with_exit_code(function: Callable[..., None]) -> Callable[..., None]:
    """The verb, its errors become one clear message and the right exit code."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        terminal.recorded = function in _RECORDED
        try:
            _check_arguments(sys.argv[1:])
            function(*args, **kwargs)
        except MismatchScopeError as error:
            show_error(error.message, error.hint, error.log_tail)
            raise typer.Exit(error.exit_code) from None
        except typer.Abort as error:  # an interrupt while a question waits for its answer
            raise typer.Exit(_interrupted(error.__context__, resumable=False)) from None
        except KeyboardInterrupt as error:
            raise typer.Exit(_interrupted(error, resumable="resume" in kwargs)) from None
        except typer.Exit:
            raise
        except MemoryError:
            show_error("There is not enough memory for this.", "fewer tokens at once, or a machine with more of it")
            raise typer.Exit(3) from None
        except Exception as error:
            show_error(f"Unexpected {unexpected(error)}.", "add --debug to see all of it")
            raise typer.Exit(3) from None

    return run


def _interrupted(error: BaseException | None, *, resumable: bool) -> int:
    """Say what ended the command; its exit code."""
    number = signal_of(error)
    message = "Interrupted." if number == signal.SIGINT else f"Interrupted by {number.name}."
    if resumable:
        show_error(f"{message} What was finished is kept.", "the same command with --resume goes on")
    else:
        show_error(message, None)
    return 128 + number


def _check_arguments(arguments: list[str]) -> None:
    """Raise `UsageError` for bytes that are not UTF-8: reports and traces name their inputs in JSON, which is."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise UsageError(
                f"The argument {argument!a} is not UTF-8.", hint="rename it, or link to it under another name"
            ) from None


def _version(value: bool) -> None:
    if value:
        from . import __version__

        sys.stdout.write(f"mismatchscope {__version__}\n")
        raise typer.Exit


@app.callback()
@_with_switches
def common(
    version: Annotated[bool, typer.Option("--version", help="Show the version.", callback=_version)] = False,
) -> None:
    """Is the policy that samples still the policy that trains?"""


def _register(group: typer.Typer, verbs: dict[str, Callable[..., None]]) -> None:
    for name, function in verbs.items():
        group.command(name)(_with_switches(_with_exit_code(function)))


# In the order in which --help lists them.
_register(
    app,
    {
        "audit": audit.command,
        "rollout": rollout.command,
        "score": score.command,
        "compare": compare.command,
        "analyze": analyze.command,
        "diagnose": diagnose.command,
        "report": report.command,
        "gate": gate.command,
        "doctor": doctor.command,
    },
)
_probes = typer.Typer(help="Change one thing at a time, on the same tokens.", no_args_is_help=True)
_register(_probes, probe.commands() | {"weights": probe_weights.command})
app.add_typer(_probes, name="probe")
_environments = typer.Typer(help="Engine environments: vLLM and SGLang in one each.", no_args_is_help=True)
_register(_environments, {"list": env.list_environments, "create": env.create, "remove": env.remove})
app.add_typer(_environments, name="env")
