"""An engine that is installed in this interpreter, as pip leaves it: a module, and metadata with a version."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def install(
    monkeypatch: pytest.MonkeyPatch,
    directory: Path,
    name: str,
    version: str | None,
    *,
    distribution: str | None = None,
    module: bool = True,
    source: str = "",
) -> None:
    """Put it first on the path: without a module, as a removal in part leaves it; without a version, a checkout.

    Processes that are started afterwards find it too. `source` is what its module runs when it is imported.
    """
    if module:
        (directory / name).mkdir(parents=True)
        (directory / name / "__init__.py").write_text(source)
    if version is not None:
        info = directory / f"{distribution or name}-{version}.dist-info"
        info.mkdir(parents=True)
        text = f"Metadata-Version: 2.1\nName: {distribution or name}\nVersion: {version}\n"
        (info / "METADATA").write_text(text)
    monkeypatch.syspath_prepend(str(directory))
    monkeypatch.setenv("PYTHONPATH", str(directory), prepend=os.pathsep)
