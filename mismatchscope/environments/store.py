"""The environments on this machine: one directory an engine version, under the user's cache directory.

    <home>/environments/vllm-0.32.0/                  a virtual environment, where it was made and never moved
    <home>/environments/vllm-0.32.0/environment.json  written last: without it the environment does not exist
    <home>/environments/.vllm-0.32.0.lock             held while it is made or removed
    <home>/logs/                                      what every creation printed

A creation that is killed leaves a directory without `environment.json`, which nobody sees and the next creation
clears away.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from ..durable import write_atomic
from ..errors import DiskFullError, EnvironmentBrokenError, MismatchScopeError, SpecError, UsageError
from ..file_errors import file_errors
from ..input_files import read_json
from ..machine import hardware, numerics_variables
from ..ownership import why_unsafe_within
from ..processes import open_log, run_to_end
from ..temporary import temporary_directory
from .build import Build, Events, interpreter_of
from .failures import DISK_HINT
from .place import closed_to_others, home, locked_environment, new_log
from .recipes import recipe_for

FACTS = "environment.json"

_INTROSPECT = Path(__file__).with_name("introspect.py")
_INTROSPECT_SECONDS = 60
_LOCK_POLL_SECONDS = 0.5


def _ignore(event: dict[str, Any]) -> None:
    return None


@dataclass(frozen=True)
class Environment:
    """An engine version's own environment. `facts` was true when it was made; `examine` tells what is now."""

    name: str
    version: str
    path: Path
    facts: dict[str, Any]

    @property
    def python(self) -> Path:
        return interpreter_of(self.path)

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"

    def examine(self) -> dict[str, Any]:
        """What `introspect` finds in it, engine, versions and device, in a fraction of a second.

        Raises `EnvironmentBrokenError` when somebody removed or changed what was installed, or could: of what
        others can write nothing is run.
        """
        if reason := why_unsafe_within(self.path):
            raise self._broken(f"what is in it would run, and {reason}")
        found = self._introspect()
        distribution, versions = self.facts["distribution"], found["versions"]
        for package in (distribution, "torch"):
            if versions[package] is None:
                raise self._broken(f"the package {package} is not installed in it")
        version = Version(versions.pop(distribution)).public  # a wheel may be 0.32.0+cu130; people ask for 0.32.0
        if Version(version) != Version(self.version):
            raise self._broken(f"it holds {distribution} {version} now")
        if found["missing"] is not None:
            raise self._broken(f"{found['missing']} is gone")
        return {"version": version, "python": found["python"], **versions, "device": found["device"]}

    def _introspect(self) -> dict[str, Any]:
        try:
            done = run_to_end(
                [str(self.python), "-I", str(_INTROSPECT), self.facts["distribution"]],
                environment=os.environ,
                timeout_s=_INTROSPECT_SECONDS,
            )
            done.check_returncode()
            return json.loads(done.stdout)
        except OSError as error:
            raise self._broken(f"its interpreter {self.python} cannot be started: {error.strerror}") from None
        except (subprocess.SubprocessError, ValueError):
            raise self._broken(f"its interpreter {self.python} does not work") from None

    def _broken(self, why: str) -> EnvironmentBrokenError:
        return EnvironmentBrokenError(
            f"The environment of {self} is broken: {why}.",
            hint=f"mismatchscope env remove {self} && mismatchscope env create {self}",
        )


_refused = partial(
    file_errors, hint="export MISMATCHSCOPE_HOME=DIRECTORY, one that can be written", kind=UsageError
)


@_refused("The engine environments cannot be read")
def installed() -> list[Environment]:
    """Every finished environment, by engine, newest version first; whether they still work is not looked at."""
    found = [_read(facts.parent) for facts in (home() / "environments").glob(f"*/{FACTS}")]
    whole = [environment for environment in found if environment is not None]
    return sorted(sorted(whole, key=_version_of, reverse=True), key=lambda environment: environment.name)


def find(name: str, version: str | None = None) -> Environment | None:
    """The environment of an engine version, or the newest when none is given; None where there is none."""
    wanted = None if version is None else _parsed(version)
    named = (environment for environment in installed() if environment.name == name)
    return next((environment for environment in named if wanted in (None, _version_of(environment))), None)


@_refused("The environment cannot be made")
def create(name: str, version: str | None = None, on_event: Events = _ignore) -> Environment:
    """Make the environment of an engine version (default: the one that was tried), or find it made already.

    It takes minutes and gigabytes. Two creators of one environment take turns; `on_event` gets the events of
    `build` and, while another process holds the lock, {"event": "locked", "holder", "seconds"}.

    Raises `SpecError` for an engine without a recipe and for a version that pip does not offer, `InstallError`
    when a step failed, `DiskFullError`, and `EnvironmentBrokenError` when it is there and broken. Whatever ends
    this call early, what was made is removed first.
    """
    recipe = recipe_for(name)
    version = version or recipe.default_version
    gpu = bool(hardware()["gpus"])
    recipe.check_version(version, gpu=gpu)
    path = _directory(name, version)

    def wait(holder: str, seconds: float) -> None:
        on_event({"event": "locked", "holder": holder, "seconds": seconds})
        time.sleep(_LOCK_POLL_SECONDS)

    with locked_environment(path, wait) as lock, temporary_directory() as scratch, closed_to_others():
        existing = find(name, version)
        if existing is not None:
            existing.examine()
            return existing
        shutil.rmtree(path, ignore_errors=True)
        began = time.monotonic()
        with open_log(new_log(name, version)) as log:
            build = Build(path, version, gpu=gpu, log=log, lock=lock, scratch=scratch, on_event=on_event)
            try:
                build.make_venv()
                facts: dict[str, Any] = {"distribution": recipe.install(build)}
                facts |= Environment(name, version, path, facts).examine()
                facts |= {
                    "name": name,
                    "created": datetime.now(UTC).isoformat(timespec="seconds"),
                    "seconds": round(time.monotonic() - began, 1),
                    "log": log.name,
                }
                write_atomic(path / FACTS, json.dumps(facts, indent=1).encode())
            except BaseException as error:
                shutil.rmtree(path, ignore_errors=True)
                if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                    raise DiskFullError(f"The disk of {path.parent} is full.", hint=DISK_HINT) from None
                raise
    return Environment(name, facts["version"], path, facts)


@_refused("The environment cannot be removed")
def remove(name: str, version: str | None = None) -> Path:
    """Remove an environment, or what a killed creation left of it; the version may be omitted where there is one.

    Returns the directory that is gone. Raises `SpecError` when there is no such environment, or several are meant.
    """
    recipe_for(name)
    if version is None:
        present = [environment for environment in installed() if environment.name == name]
        if len(present) != 1:
            commands = [f"mismatchscope env remove {environment}" for environment in present]
            raise SpecError(
                f"{len(present) or 'No'} environments of {name} are there.",
                hint=" or ".join(commands) or "mismatchscope env list",
            )
        version = present[0].version
    found = find(name, version)
    path = found.path if found is not None else _directory(name, version)
    if not path.is_dir():
        raise SpecError(f"There is no environment of {name} {version}.", hint="mismatchscope env list")

    def refuse(holder: str, seconds: float) -> None:
        raise MismatchScopeError(f"{path.name} is being made by {holder}.", hint="end it, or wait for it")

    with locked_environment(path, refuse):
        (path / FACTS).unlink(missing_ok=True)  # first: half an environment must not be taken for a whole one
        shutil.rmtree(path)
    return path


def describe() -> list[dict[str, Any]]:
    """Every environment as it is now, JSON-serialisable: what it consists of, or in `broken` what is wrong."""
    rows = []
    for environment in installed():
        row = {
            "name": environment.name,
            "version": environment.version,
            "interpreter": str(environment.python),
            **dict.fromkeys(("python", "torch", "transformers", "device")),
            "variables": numerics_variables(environment.name),
            "broken": None,
            "hint": None,
        }
        try:
            row |= environment.examine()
        except EnvironmentBrokenError as error:
            row |= {"broken": error.message, "hint": error.hint}
        rows.append(row)
    return rows


def _read(path: Path) -> Environment | None:
    try:
        facts = read_json(path / FACTS)
        Version(facts["version"])
        return Environment(facts["name"], facts["version"], path, facts)
    except (OSError, ValueError, LookupError, TypeError):
        return None  # not written by us, or not whole


def _directory(name: str, version: str) -> Path:
    return home() / "environments" / f"{name}-{_parsed(version)}"


def _version_of(environment: Environment) -> Version:
    return Version(environment.version)


def _parsed(version: str) -> Version:
    try:
        return Version(version)
    except InvalidVersion:
        raise SpecError(f"'{version}' is not a version.", hint="write it as in vllm==0.32.0") from None
