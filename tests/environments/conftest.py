from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import toy

from mismatchscope.environments import Environment, create
from mismatchscope.environments.build import Build
from mismatchscope.environments.recipes import RECIPES


def isolate(patch: pytest.MonkeyPatch, home: Path, wheels: Path) -> None:
    """Environments under `home`, pip with `wheels` and nothing else, the toy engine among the recipes, no GPU."""
    patch.setenv("MISMATCHSCOPE_HOME", str(home))
    for name, value in {"CONFIG_FILE": "/dev/null", "NO_INDEX": "1", "FIND_LINKS": str(wheels)}.items():
        patch.setenv(f"PIP_{name}", value)
    patch.setitem(RECIPES, "toy", toy.RECIPE)
    patch.setattr("mismatchscope.environments.store.hardware", lambda: {"gpus": []})


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("toy") / "wheels"
    toy.write_wheels(directory)
    return directory


@pytest.fixture(scope="session")
def created(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> tuple[Environment, list[dict]]:
    """The toy environment, made once by the real `venv` and the real pip, and the events of that."""
    events: list[dict] = []
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, tmp_path_factory.mktemp("home"), wheels)
        return create("toy", "1.0.0", events.append), events


@pytest.fixture
def home(
    tmp_path: Path, created: tuple[Environment, list[dict]], wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """An empty home, where making the virtual environment itself is a quick copy; pip stays the real one."""
    isolate(monkeypatch, tmp_path / "home", wheels)
    monkeypatch.setattr(Build, "make_venv", toy.make_venv_from(created[0].path))
    monkeypatch.setenv("TOY_TEMPLATE", str(created[0].path))
    return tmp_path / "home"


@pytest.fixture
def environment(home: Path, created: tuple[Environment, list[dict]]) -> Environment:
    """A finished toy environment in `home`, to be broken at will; without pip, which is most of its files."""
    original = created[0]
    path = home / "environments" / original.path.name
    ignore = shutil.ignore_patterns("pip*", "setuptools*", "pkg_resources")
    shutil.copytree(original.path, path, symlinks=True, ignore=ignore)
    return Environment(original.name, original.version, path, original.facts)
