"""The one exception tree. Every error knows its exit code and the next command to type.

    MismatchScopeError            exit 3   the tool failed
    ├── UsageError                exit 2   what was asked for is wrong
    │   ├── ConfigError                    an option, a key, a TOML file
    │   ├── SpecError                      an engine SPEC
    │   ├── PromptsError                   a prompts file, named by file and line
    │   ├── NoLogsError                    no file of a known log format where one was looked for
    │   ├── ModelError                     a model or tokenizer that cannot be used
    │   ├── OutputExistsError              the output directory is taken
    │   └── LockedError                    another process writes there at this moment
    ├── EngineError               exit 3   an engine failed; carries the tail of its log where the engine says why
    │   ├── WorkerError                    its process died; carries the tail of its log
    │   └── CapabilityError       exit 2   the engine cannot see what was asked for
    ├── MissingDependencyError    exit 3   an optional package is not installed
    ├── EnvironmentMissingError   exit 3   an engine's environment has not been made
    ├── EnvironmentBrokenError    exit 3   it was made, and changed by hand since
    ├── InstallError              exit 3   making it failed; carries the tail of pip's log
    ├── TraceError                exit 3   a trace is truncated, altered or of another schema
    ├── DiskFullError             exit 3   what was finished is kept; resume when there is room
    └── NotComparableError        exit 4   two things that must not be compared
        ├── EmptyComparisonError           nothing is left to compare
        └── MisalignedError                other tokens, another vocabulary, shifted by one

Exit 1 belongs to a failed gate alone, which is a result and no error; 130 is an interrupt.
"""

from __future__ import annotations

import re
import shlex
import sys
import traceback
from pathlib import Path, PurePath

from .credentials import masked
from .foreign_text import printable, printable_lines


class MismatchScopeError(Exception):
    """Base of every error this package raises on purpose.

    `message` says what happened and why; `hint` is the next thing to do, usually a command. Where another program
    failed, `log_tail` holds the last lines that it wrote and `log_path` the whole log. All of them can quote what
    others wrote: credentials are masked in them, and they are made safe to print.
    """

    exit_code = 3

    def __init__(self, message: str, hint: str | None = None, log_tail: str = "", log_path: str = "") -> None:
        self.message = printable(masked(message))
        super().__init__(self.message)
        self.hint = None if hint is None else printable(masked(hint))
        self.log_tail = printable_lines(masked(log_tail))
        self.log_path = log_path


def unexpected(error: Exception) -> str:
    """`ValueError at pair.py:12`: an error that nobody raised on purpose, without its message, which may quote a
    prompt or a key."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}"


class UsageError(MismatchScopeError):
    exit_code = 2


class ConfigError(UsageError):
    pass


class SpecError(UsageError):
    pass


class PromptsError(UsageError):
    pass


class NoLogsError(UsageError):
    pass


class ModelError(UsageError):
    pass


class OutputExistsError(UsageError):
    pass


class LockedError(UsageError):
    pass


class EngineError(MismatchScopeError):
    pass


class WorkerError(EngineError):
    """An engine's process ended before its work did."""


class CapabilityError(EngineError):
    exit_code = 2


class MissingDependencyError(MismatchScopeError):
    """An optional package is missing; the hint is the pip command that installs it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package}, which is not installed.",
            hint=install_command(extra),
        )


def install_command(extra: str) -> str:
    """The command that adds an extra to this installation.

    uv and pipx keep each program in an environment of its own, which pip must not change. Where this interpreter
    lives tells which of them made it, and whether to stay (`uv tool`, `pipx install`) or for one run.
    """
    requirement = f"'mismatchscope[{extra}]'"
    prefix = f"{PurePath(sys.prefix).as_posix()}/"
    again = shlex.join(["mismatchscope", *sys.argv[1:]])
    if "/uv/tools/" in prefix:
        return f"uv tool install {requirement}"
    if re.search(r"/uv/(archive|environments)-v\d+/", prefix):
        return f"uvx --from {requirement} {again}"
    if "/pipx/venvs/" in prefix:
        return f"pipx install --force {requirement}"
    if re.search(r"/pipx/(\.cache/)?[0-9a-f]{8,}/", prefix):
        return f"pipx run --spec {requirement} {again}"
    return f"pip install {requirement}"


class EnvironmentMissingError(MismatchScopeError):
    """An engine version has no environment; the hint is the command that makes it."""


class EnvironmentBrokenError(MismatchScopeError):
    """An engine's environment does not work any more; the hint makes it anew."""


class InstallError(MismatchScopeError):
    """Making an environment failed."""


class TraceError(MismatchScopeError):
    pass


class DiskFullError(MismatchScopeError):
    pass


class NotComparableError(MismatchScopeError):
    exit_code = 4


class EmptyComparisonError(NotComparableError):
    pass


class MisalignedError(NotComparableError):
    pass
