"""Damaged files and odd options: an exit code that fits, a sentence, bounded time and memory, and no wrong pass."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

FUZZ = Path(__file__).with_name("fuzz.py")
FILES, OPTIONS, MODELS = 500, 80, 24


def test_damaged_files_and_odd_options() -> None:
    counts = ["--files", str(FILES), "--options", str(OPTIONS), "--models", str(MODELS)]
    done = subprocess.run(
        [sys.executable, str(FUZZ), *counts, "--seed", "20"], capture_output=True, text=True, check=False
    )
    last = done.stdout.strip().rpartition("\n")[2]
    assert done.returncode == 0 and last.endswith("wrong: none"), done.stdout[-6000:] + done.stderr[-2000:]
    assert last.startswith(f"{FILES + OPTIONS + MODELS} runs: ")
    ended = {int(code): int(count) for code, count in re.findall(r"(\d): (\d+)", last)}
    # Refused by what reads each kind; what is damaged and says the same is none the worse for it.
    assert min(ended[0], ended[2], ended[3]) > 0.05 * FILES
