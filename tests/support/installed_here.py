"""An engine that is installed in this interpreter, as pip leaves it: a module, and metadata with a version."""

from __future__ import annotations

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
) -> None:
    """Put it first on the path: without a module, as a removal in part leaves it; without a version, a checkout."""
    if module:
        (directory / name).mkdir(parents=True)
        (directory / name / "__init__.py").write_text("")
    if version is not None:
        info = directory / f"{distribution or name}-{version}.dist-info"
        info.mkdir(parents=True)
        text = f"Metadata-Version: 2.1\nName: {distribution or name}\nVersion: {version}\n"
        (info / "METADATA").write_text(text)
    monkeypatch.syspath_prepend(str(directory))
