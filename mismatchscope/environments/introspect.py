"""Run by an environment's own interpreter: `introspect.py DISTRIBUTION` prints what is installed there, as JSON.

Nothing is imported, so this takes a fraction of a second where importing an engine takes ten: versions come from
package metadata, the device from the file in which torch records what it was built for. The standard library only.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import runpy
import sys
from typing import Any


def facts(distribution: str) -> dict[str, Any]:
    """`missing` is the first file that pip installed for the engine or torch and that is gone, None if none is."""
    build = _torch_build()
    return {
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in (distribution, "torch", "transformers")},
        "device": None if build is None else next((kind for kind in ("cuda", "hip") if build.get(kind)), "cpu"),
        "missing": _missing(distribution) or _missing("torch"),
    }


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _torch_build() -> dict[str, Any] | None:
    try:
        files = importlib.metadata.files("torch") or []
        path = next(file.locate() for file in files if str(file) == os.path.join("torch", "version.py"))
        return runpy.run_path(str(path))
    except (importlib.metadata.PackageNotFoundError, StopIteration, OSError):
        return None


def _missing(distribution: str) -> str | None:
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    # Compiled files come and go: people delete them, Python makes them anew.
    paths = (str(file.locate()) for file in files if file.suffix != ".pyc")
    return next((path for path in paths if not os.path.exists(path)), None)


if __name__ == "__main__":
    json.dump(facts(sys.argv[1]), sys.stdout)
