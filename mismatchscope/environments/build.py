"""One environment while it is being made: a virtual environment, the commands run in it, their log and progress.

Events, dictionaries with the key `event`:

    step   name                   a step begins
    alive  lines, line, seconds   about once a second and at its end: lines it printed, the last of them, its time
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from ..processes import FollowedProcess
from .failures import explain

Events = Callable[[dict[str, Any]], None]

ALIVE_SECONDS = 1.0

# They would send what pip installs elsewhere than into the environment.
_REDIRECTING = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PYTHONHOME", "PYTHONPATH")


class Build:
    """What a recipe works with. `gpu` says which kind of machine the engine is installed for.

    `lock` is inherited by every command: should this process be killed, the lock lasts as long as the command does,
    so that nobody builds in the same directory meanwhile. `scratch` is where their temporary files go.
    """

    def __init__(
        self, path: Path, version: str, *, gpu: bool, log: BinaryIO, lock: int, scratch: Path, on_event: Events
    ) -> None:
        self.path = path
        self.version = version
        self.gpu = gpu
        self.python = interpreter_of(path)
        self._log = log
        self._lock = lock
        self._scratch = scratch
        self._on_event = on_event

    def make_venv(self) -> None:
        """The empty environment, of the Python that runs this."""
        self._run([sys.executable, "-m", "venv", str(self.path)], "make the virtual environment")

    def pip_install(self, *arguments: str, step: str) -> None:
        """`pip install` as the user has configured pip. Raises what `failures.explain` makes of its output."""
        # Most modules are never imported: compiling all of them takes a minute, and Python compiles on import.
        options = ("--progress-bar=off", "--no-input", "--disable-pip-version-check", "--no-compile")
        self._python(["-m", "pip", "install", *options, *arguments], step)

    def pip_uninstall(self, *packages: str, step: str) -> None:
        """Remove packages; one that is not there is no error."""
        self._python(["-m", "pip", "uninstall", "--yes", "--disable-pip-version-check", *packages], step)

    def check_imports(self, modules: Sequence[str], variables: dict[str, str]) -> None:
        """Import modules in a fresh interpreter of the environment. Raises `InstallError` when one does not."""
        self._python(["-W", "ignore", "-c", f"import {', '.join(modules)}"], "check that it imports", variables)

    @property
    def site_packages(self) -> Path:
        version = sys.version_info
        return self.path / "lib" / f"python{version.major}.{version.minor}" / "site-packages"

    def write(self, name: str, text: str) -> None:
        """Add a file to the environment's site-packages."""
        target = self.site_packages / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")

    def _python(self, arguments: Sequence[str], step: str, variables: dict[str, str] | None = None) -> None:
        # -I: neither the current directory nor the user's own packages count as installed.
        self._run([str(self.python), "-I", *arguments], step, variables)

    def _run(self, command: Sequence[str], step: str, variables: dict[str, str] | None = None) -> None:
        """Run a command to its end, its output going to the log. Raises what `failures.explain` makes of it."""
        self._on_event({"event": "step", "name": step})
        self._log.write(f"\n$ {' '.join(command)}\n".encode())
        environment = {name: value for name, value in os.environ.items() if name not in _REDIRECTING}
        with FollowedProcess(
            command,
            environment=environment | {"PIP_USER": "0", "TMPDIR": str(self._scratch)} | (variables or {}),
            stderr=subprocess.STDOUT,
            inherited=(self._lock,),
        ) as process:
            output = self._log_output(process)
            status = process.returncode
        if status != 0:
            raise explain(output, step, status, Path(self._log.name))

    def _log_output(self, process: FollowedProcess) -> str:
        """Copy what a command prints to the log, telling about it, until it is done; all of it in the end."""
        output, began, told = bytearray(), time.monotonic(), 0.0

        def tell() -> None:
            *_, line = [b"", *output.rstrip().splitlines()]
            event = {"lines": output.count(b"\n"), "line": line.decode(errors="replace").strip()}
            self._on_event({"event": "alive", **event, "seconds": time.monotonic() - began})

        for chunk in process.output(ALIVE_SECONDS):
            output += chunk
            self._log.write(chunk)
            self._log.flush()
            if time.monotonic() - told >= ALIVE_SECONDS:
                told = time.monotonic()
                tell()
        tell()
        return output.decode(errors="replace")


def interpreter_of(path: Path) -> Path:
    """The interpreter of the virtual environment at `path`."""
    return path / "bin" / "python"
