"""The offer to create a missing engine environment, made by the installed command on a real terminal."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest
from command import COMMAND, run

pytestmark = pytest.mark.slow

MISSING = "There is no environment of sglang 0.5.23 yet."


def ask(answer: str, home: Path, verb: list[str]) -> tuple[int, str]:
    """The exit code, and what a person sees who types `answer` at a terminal."""
    leader, follower = pty.openpty()
    environment = os.environ | {"MISMATCHSCOPE_HOME": str(home), "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "100"}
    environment |= {"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(home)}
    with subprocess.Popen(
        [COMMAND, *verb], stdin=follower, stdout=follower, stderr=follower, env=environment, cwd=home
    ) as process:
        os.close(follower)
        os.write(leader, f"{answer}\n".encode())
        seen = b""
        while True:
            try:
                seen += os.read(leader, 65536)
            except OSError:  # how a terminal ends whose last user is gone
                break
    os.close(leader)
    return process.returncode, seen.decode()


@pytest.mark.parametrize(
    "verb",
    [
        ["audit", "--behavior", "sglang==0.5.23"],
        ["audit", "--baseline", "sglang==0.5.23"],
        ["rollout", "--engine", "sglang==0.5.23", "-o", "out"],
    ],
)
def test_no_creates_nothing_and_tells_the_command(tmp_path: Path, verb: list[str]) -> None:
    status, seen = ask("n", tmp_path, verb)
    assert status == 3
    assert f"{MISSING} Create it now?" in seen and "next: mismatchscope env create sglang==0.5.23" in seen
    assert list(tmp_path.iterdir()) == []


def test_a_no_to_an_engine_among_the_values_costs_the_others_nothing(tmp_path: Path) -> None:
    small = ["--limit", "2", "--samples", "1", "--max-new-tokens", "4"]
    sides = ["--behavior", "synthetic", "--reference", "synthetic", "--values", "sglang==0.5.23"]
    status, seen = ask("n", tmp_path, ["probe", "version", *sides, *small, "-o", "out"])
    assert seen.count(f"{MISSING} Create it now?") == 1
    assert status == 4 and "sglang==0.5.23" in seen and ": failed," in seen


def test_yes_creates_it(tmp_path: Path) -> None:
    """There is no package to be had here, so that the creation ends where pip is asked for the first one."""
    status, seen = ask("y", tmp_path, ["audit", "--behavior", "sglang==0.5.23"])
    assert status == 3 and "install torch for CPU" in seen
    assert "error: pip offers no CPU build of torch" in seen
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("mismatchscope-audit")] == []


def test_the_end_of_input_is_no_answer(tmp_path: Path) -> None:
    """Which the library reports as it does an interrupt."""
    status, seen = ask("\x04", tmp_path, ["audit", "--behavior", "sglang==0.5.23"])
    assert status == 130 and "error: Interrupted." in seen
    assert list(tmp_path.iterdir()) == []


def test_nobody_is_asked_where_nobody_watches(tmp_path: Path) -> None:
    done = run("audit", "--behavior", "sglang==0.5.23", cwd=tmp_path, MISMATCHSCOPE_HOME=str(tmp_path))
    assert done.returncode == 3
    assert done.stderr.startswith(f"error: {MISSING}\n next: mismatchscope env create sglang==0.5.23")
