"""Run the command many times in forks of one process that has imported everything: milliseconds each, not seconds.

Each run has a session of its own, its own working directory and standard streams, and limits on time and memory.
"""

from __future__ import annotations

import faulthandler
import gc
import importlib
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

PROCESSES = 2
NOT_RUN = 97
"""The status of a fork whose preparation failed: a mistake of the test, none of the command."""

_MODULES = (
    "numpy",
    "scipy.stats",
    "scipy.special",
    "pyarrow.parquet",
    "pyarrow.compute",
    "safetensors.numpy",
    "jinja2",
    "matplotlib.figure",
    "matplotlib.font_manager",
    "matplotlib.backends.backend_svg",
    "rich.console",
    "rich.progress",
    "rich.table",
    "rich.markup",
    "mismatchscope.cli",
    "mismatchscope.gate",
    "mismatchscope.api",
    "mismatchscope.probes.audit",
    "mismatchscope.collection.single_trace",
    "mismatchscope.comparison.compare_traces",
    "mismatchscope.reports.html",
    "mismatchscope.reports.console",
    "mismatchscope.reports.markdown",
    "mismatchscope.reports.junit",
    "mismatchscope.reports.csv",
)


@dataclass(frozen=True)
class Run:
    """What to run. `prepare` is called in the fork first, before the limit on its memory holds."""

    directory: Path
    arguments: list[str]
    prepare: Callable[[Path], None] | None = None
    environment: dict[str, str | None] = field(default_factory=dict)
    """Variables to set; None takes one away."""
    before: Callable[[], None] | None = None
    """Called in the fork last, before the command."""


@dataclass(frozen=True)
class Ended:
    """How it ended: its exit code (None after the time limit, negative a signal), and what it printed and used."""

    code: int | None
    stdout: str
    stderr: str
    seconds: float
    peak_bytes: int

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


def warm_up() -> None:
    """Import once what the forks need."""
    for name in _MODULES:
        importlib.import_module(name)
    gc.freeze()


def run_all(
    runs: Iterable[Run], *, seconds: float = 20.0, address_space: int = 3 * 2**30, processes: int = PROCESSES
) -> Iterator[tuple[Run, Ended]]:
    """Each run with how it ended, in the order in which they end; `processes` of them at a time."""
    waiting = iter(runs)
    running: dict[int, tuple[int, Run, float]] = {}  # by its pidfd: process, run, when it began
    try:
        while True:
            while len(running) < processes and (run := next(waiting, None)) is not None:
                process = _fork(run, address_space, seconds)
                running[os.pidfd_open(process)] = process, run, time.monotonic()
            if not running:
                return
            ready, _, _ = select.select([*running], [], [], 0.2)
            for descriptor, (process, run, began) in [*running.items()]:
                late = time.monotonic() - began > seconds
                if descriptor in ready or late:
                    if late and descriptor not in ready:
                        _kill(process)
                    del running[descriptor]
                    os.close(descriptor)
                    yield run, _collect(process, run, began, late and descriptor not in ready)
    finally:
        for descriptor, (process, _, _) in running.items():
            _kill(process)
            os.close(descriptor)
            os.waitpid(process, 0)


def _fork(run: Run, address_space: int, seconds: float) -> int:
    run.directory.mkdir(parents=True, exist_ok=True)
    process = os.fork()
    if process:
        return process
    status = NOT_RUN
    try:
        os.setsid()
        for stream, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
            path = "/dev/null" if number == 0 else run.directory / f".{stream}"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(descriptor, number)
        # As Python's own: replacing one leaves its descriptor open.
        sys.stdin, sys.stdout, sys.stderr = (open(number, mode, closefd=False) for number, mode in enumerate("rww"))  # noqa: SIM115
        sys.stderr.reconfigure(errors="backslashreplace")
        faulthandler.enable()
        faulthandler.dump_traceback_later(0.9 * seconds)
        os.chdir(run.directory)
        if run.prepare is not None:
            run.prepare(run.directory)
        for name, value in run.environment.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        if run.before is not None:
            run.before()
        resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
        status = _command(run.arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        for output in (sys.stdout, sys.stderr):
            try:
                output.flush()
            except Exception:
                traceback.print_exc()
        os._exit(status)


def _command(arguments: list[str]) -> int:
    from mismatchscope.cli import main

    sys.argv = ["mismatchscope", *arguments]
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    return 0


def _collect(process: int, run: Run, began: float, killed: bool) -> Ended:
    _, status, usage = os.wait4(process, 0)
    texts = [
        file.read_text(errors="replace") if (file := run.directory / f".{stream}").is_file() else ""
        for stream in ("stdout", "stderr")
    ]
    code = None if killed else os.waitstatus_to_exitcode(status)
    return Ended(code, *texts, time.monotonic() - began, usage.ru_maxrss * 1024)


def _kill(process: int) -> None:
    try:
        os.killpg(process, signal.SIGKILL)
    except ProcessLookupError:
        os.kill(process, signal.SIGKILL)
