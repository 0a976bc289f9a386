"""What a person reads when something is missing or wrong."""

from __future__ import annotations

import sys

import pytest

from mismatchscope.errors import MissingDependencyError


@pytest.mark.parametrize(
    ("prefix", "command"),
    [
        ("/home/ada/project/.venv", "pip install 'mismatchscope[torch]'"),
        ("/srv/uv/project/.venv", "pip install 'mismatchscope[torch]'"),
        ("/srv/pipx/.venv", "pip install 'mismatchscope[torch]'"),
        ("/home/ada/.cache/uv/archive-v0/Wq3f", "uvx --from 'mismatchscope[torch]' mismatchscope audit"),
        ("/home/ada/.local/share/uv/tools/mismatchscope", "uv tool install 'mismatchscope[torch]'"),
        ("/home/ada/.cache/pipx/3f9c02ab7d41e65", "pipx run --spec 'mismatchscope[torch]' mismatchscope audit"),
        ("/home/ada/.local/pipx/.cache/3f9c02ab7d4", "pipx run --spec 'mismatchscope[torch]' mismatchscope audit"),
        ("/home/ada/.local/pipx/venvs/mismatchscope", "pipx install --force 'mismatchscope[torch]'"),
    ],
)
def test_a_missing_package_names_the_command_of_whoever_installed_it(
    prefix: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", prefix)
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/mismatchscope", "audit"])
    error = MissingDependencyError("torch", "torch", "The trainer")
    assert error.hint == command
    assert error.message == "The trainer needs the package torch, which is not installed."
    assert error.exit_code == 3
