"""Versions of packages, in this interpreter and in another."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import pytest

from mismatchscope.environments.packages import package_versions
from mismatchscope.errors import SpecError


def test_both_ways_of_asking_say_the_same() -> None:
    here = package_versions(None, ("numpy", "safetensors", "no-such-package"))
    assert here == {name: importlib.metadata.version(name) for name in ("numpy", "safetensors")}
    assert package_versions(sys.executable, ("numpy", "safetensors", "no-such-package")) == here


@pytest.mark.parametrize("content", [None, "#!/bin/sh\nexit 1\n", "#!/bin/sh\necho not JSON\n"])
def test_what_is_no_interpreter_is_named(tmp_path: Path, content: str | None) -> None:
    python = tmp_path / "python"
    if content is not None:
        python.write_text(content)
        python.chmod(0o755)
    with pytest.raises(SpecError, match=f"The interpreter {python} cannot be started"):
        package_versions(str(python), ("numpy",))
