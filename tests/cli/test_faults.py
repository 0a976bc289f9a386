"""What ends a command without an error of this package: one message, one exit code, and no text of a prompt."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from mismatchscope.cli import app


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (MemoryError(), "error: There is not enough memory for this.\n next: "),
        (KeyError("a prompt"), "error: Unexpected KeyError at test_faults.py:"),
    ],
)
def test_a_fault_is_one_message(monkeypatch: pytest.MonkeyPatch, fault: Exception, says: str) -> None:
    def examine() -> None:
        raise fault

    monkeypatch.setattr("mismatchscope.doctor.examine", examine)
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 3
    assert says in done.stderr and "a prompt" not in done.stderr
