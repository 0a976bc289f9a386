"""An interrupted run of the toy engine."""

from __future__ import annotations

import shutil
from pathlib import Path
from unittest.mock import Mock

import pytest
from toy_runs import collect

from mismatchscope.engines import registry


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.ENGINES, "toy", "toy_engine:ToyEngine")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run leaves that ended before its last trace was whole, and before any was packed."""
    directory = tmp_path_factory.mktemp("interrupted")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setitem(registry.ENGINES, "toy", "toy_engine:ToyEngine")
        patch.setattr("mismatchscope.collection.collector.finish", Mock(side_effect=KeyboardInterrupt))
        collect(directory)
    (directory / "again" / "parts" / "000000005.safetensors").unlink()
    return directory


@pytest.fixture
def interrupted(template: Path, tmp_path: Path) -> Path:
    return shutil.copytree(template, tmp_path / "run")
