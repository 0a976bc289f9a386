"""A toy engine as small wheels (itself, and a "torch" that it requires), and the recipe that installs it with pip.

Run as a program, `toy.py VERSION`, it creates the toy environment and prints every event as a line of JSON. Where
$TOY_SLEEP is set, importing the toy engine prints its process id and sleeps.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import zipfile
from pathlib import Path

from mismatchscope.environments import create
from mismatchscope.environments.build import Build
from mismatchscope.environments.recipe import Recipe
from mismatchscope.environments.recipes import RECIPES

ENGINE = """
import os, time
if os.environ.get("TOY_SLEEP"):
    print("asleep in", os.getpid(), flush=True)
    time.sleep(float(os.environ["TOY_SLEEP"]))
if os.environ.get("TOY_BREAKS"):
    raise ImportError("libtoy.so: undefined symbol")
"""


def write_wheels(directory: Path) -> None:
    """Two versions of the engine, one for a Python that nobody has, and the torch that they require."""
    directory.mkdir()
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        files = {"toyengine/__init__.py": ENGINE, "toyengine/kernels.py": ""}
        python = ">=9" if version == "1.2.0" else ">=3"
        _write_wheel(directory, "toyengine", version, files, f"Requires-Dist: torch\nRequires-Python: {python}\n")
    _write_wheel(directory, "torch", "2.9.0+cpu", {"torch/__init__.py": "", "torch/version.py": "cuda = None\n"})


def _write_wheel(directory: Path, name: str, version: str, files: dict[str, str], metadata: str = "") -> None:
    info = f"{name}-{version}.dist-info"
    files = files | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{metadata}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: toy\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(directory / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in (files | {f"{info}/RECORD": record}).items():
            archive.writestr(path, text)


def _install(build: Build) -> None:
    build.pip_install(f"toyengine=={build.version}", step="install toyengine")


RECIPE = Recipe(
    name="toy",
    default_version="1.1.0",
    distribution="toyengine",
    cpu_distribution="toyengine",
    install_cpu=_install,
    imports=("toyengine",),
)


def make_venv_from(template: Path):
    """A quick `Build.make_venv`: hard links to an environment that was made before."""

    def make_venv(self: Build) -> None:
        ignore = shutil.ignore_patterns("environment.json")
        shutil.copytree(template, self.path, symlinks=True, copy_function=os.link, ignore=ignore)

    return make_venv


if __name__ == "__main__":
    RECIPES["toy"] = RECIPE
    Build.make_venv = make_venv_from(Path(os.environ["TOY_TEMPLATE"]))
    print(create("toy", sys.argv[1], lambda event: print(json.dumps(event), flush=True)).python)
