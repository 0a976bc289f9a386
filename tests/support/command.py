"""Run the installed command as a person would, in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

COMMAND = shutil.which("mismatchscope", path=str(Path(sys.executable).parent)) or "mismatchscope"

# No model and no torch: the whole pipeline in a second or two. Both sides are noisy, so that the floors are not 0.
SYNTHETIC = ["--behavior", "synthetic:noise=0.003", "--reference", "synthetic:noise=0.003,tv=0.05"]
SMALL = ["--limit", "12", "--samples", "2", "--max-new-tokens", "24"]


def run(*arguments: str | Path, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `mismatchscope` with plain output; returns what it printed and its exit code."""
    environment = {key: value for key, value in os.environ.items() if key != "GITHUB_STEP_SUMMARY"}
    return subprocess.run(
        [COMMAND, *map(str, arguments)],
        cwd=cwd,
        env=environment | {"NO_COLOR": "1", "COLUMNS": "100"} | variables,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def audit(directory: Path, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A small audit of the synthetic engine against itself, shifted."""
    return run("audit", *SYNTHETIC, *SMALL, "-o", directory, *arguments, **variables)
