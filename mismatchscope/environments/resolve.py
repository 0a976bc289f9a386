"""From an engine SPEC to the interpreter that its worker runs in."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import dataclass

from packaging.version import InvalidVersion, Version

from ..engines.spec import EngineSpec
from ..errors import EnvironmentMissingError
from ..machine import hardware, package_version
from ..processes import run_to_end
from .recipe import Recipe
from .recipes import RECIPES
from .store import find

_IMPORT_SECONDS = 120


def interpreter(spec: EngineSpec) -> str | None:
    """The interpreter for a SPEC; None is our own.

    `python=PATH` is taken as it is. An engine without a recipe runs in our own interpreter, and so does one that is
    a server already. Any other runs in our own interpreter too where it is installed there in the version that the
    SPEC names, if it names one: on most machines with a GPU that is the engine people mean. Else it runs in an
    environment of its own, of that version or the newest there is.

    Whether an engine that is there also imports is not tried here, which takes ten seconds: its worker says so.
    Raises `EnvironmentMissingError` where there is neither and `EnvironmentBrokenError` where an environment does
    not work.
    """
    if spec.python is not None or spec.url is not None or spec.name not in RECIPES:
        return spec.python
    recipe = RECIPES[spec.name]
    installed = at_hand(recipe)
    if installed is not None and installed.serves(spec.version):
        return None
    environment = find(spec.name, spec.version)
    if environment is None:
        wanted = f"{spec.name}=={spec.version or recipe.default_version}"
        beside = f" ({remains})" if (remains := _beside(recipe, installed)) else ""
        raise EnvironmentMissingError(
            f"There is no environment of {spec.name}{f' {spec.version}' if spec.version else ''} yet{beside}.",
            hint=f"mismatchscope env create {wanted}, or {spec.name}:python=PATH for one that you have",
        )
    environment.examine()
    return str(environment.python)


def _beside(recipe: Recipe, installed: AtHand | None) -> str | None:
    """What our own interpreter has of an engine, where that does not serve; None where it has nothing."""
    if installed is not None:
        return f"this interpreter has {installed.version or 'an unknown version'}"
    if version := metadata_version(recipe):
        return f"of {recipe.name} {version} this interpreter has the metadata alone, no module"
    return None


@dataclass(frozen=True)
class AtHand:
    """An engine that our own interpreter can import; `version` is None where nothing says which it is."""

    version: str | None

    def serves(self, wanted: str | None) -> bool:
        """Whether it is the version that a SPEC names. A version that nobody knows is none that was named."""
        if wanted is None:
            return True
        try:
            return self.version is not None and Version(self.version) == Version(wanted)
        except InvalidVersion:
            return False


def at_hand(recipe: Recipe) -> AtHand | None:
    """The engine as it is installed in our own interpreter; None where its module is not there."""
    module = importlib.util.find_spec(recipe.imports[0])
    if module is None or module.origin is None:  # any directory of that name on the path is a namespace
        return None
    found = metadata_version(recipe)
    try:
        return AtHand(None if found is None else Version(found).public)
    except InvalidVersion:  # somebody's own build
        return AtHand(found)


def metadata_version(recipe: Recipe) -> str | None:
    """The version that pip recorded in our own interpreter, whether or not the engine is still there."""
    return package_version(recipe.distribution) or package_version(recipe.cpu_distribution)


def import_failure(recipe: Recipe) -> str | None:
    """Why the engine that is at hand does not import, tried in a process of its own; None where it does.

    It takes as long as importing the engine, ten seconds or more: for people who ask, not for every run.
    """
    variables = {"PYTHONSAFEPATH": "1"} | ({} if hardware()["gpus"] else recipe.cpu_variables)  # as for a worker
    command = [sys.executable, "-c", "; ".join(f"import {module}" for module in recipe.imports)]
    try:
        done = run_to_end(command, environment=os.environ | variables, timeout_s=_IMPORT_SECONDS)
    except subprocess.TimeoutExpired:
        return f"importing it does not end within {_IMPORT_SECONDS} s"
    except subprocess.SubprocessError:
        return "importing it prints without end"
    if done.returncode == 0:
        return None
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return f"importing it fails: {lines[-1] if lines else f'exit status {done.returncode}'}"
