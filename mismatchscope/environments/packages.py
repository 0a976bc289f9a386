"""Which versions of packages an engine's interpreter has, read from their metadata: nothing is imported."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable

from ..errors import SpecError
from ..machine import package_version
from ..processes import run_to_end

_SECONDS = 60
_PROGRAM = """
import importlib.metadata, json, sys
versions = {}
for name in sys.argv[1:]:
    try:
        versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
json.dump(versions, sys.stdout)
"""


def package_versions(python: str | None, names: Iterable[str]) -> dict[str, str]:
    """The versions of those of these distributions that an interpreter has, None being our own.

    Raises `SpecError` for an interpreter that does not start.
    """
    names = sorted(names)
    if not names:
        return {}
    if python is None:
        return {name: found for name in names if (found := package_version(name)) is not None}
    try:
        variables = {"PYTHONSAFEPATH": "1"}  # as for a worker
        done = run_to_end([python, "-c", _PROGRAM, *names], environment=os.environ | variables, timeout_s=_SECONDS)
        done.check_returncode()
        return json.loads(done.stdout)
    except OSError as error:
        why = error.strerror
    except subprocess.TimeoutExpired:
        why = f"it says nothing within {_SECONDS} s"
    except (subprocess.SubprocessError, ValueError):
        why = "it does not run a program"
    raise SpecError(f"The interpreter {python} cannot be started: {why}.", hint="mismatchscope env list")
