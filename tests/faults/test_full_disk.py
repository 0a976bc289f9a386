"""No room left: what was finished is kept, the message says what to do, and resuming ends with the same report.

The limit is on the size of every single file, which fails as a full disk does and needs no privileges.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

COMMAND = shutil.which("mismatchscope", path=str(Path(sys.executable).parent)) or "mismatchscope"
AUDIT = [
    *(
        COMMAND,
        "audit",
        "-q",
        "--behavior",
        "synthetic:noise=0.003",
        "--reference",
        "synthetic:noise=0.003,tv=0.05",
    ),
    *("--limit", "8", "--max-new-tokens", "48", "-o"),
]


def audit(directory: Path, *arguments: str, largest_file: int | None = None) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        if largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    return subprocess.run(
        [*AUDIT, str(directory), *arguments], preexec_fn=limit, capture_output=True, text=True, check=False
    )


def figures(directory: Path) -> dict:
    report = json.loads((directory / "report.json").read_text())
    return {key: report[key] for key in ("finding", "counts", "alpha1", "token", "sequence", "floor", "worst")}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("disk") / "undisturbed"
    assert audit(directory).returncode == 0
    return directory


# 6 kB stops the worker at its first long sequence, 60 kB the packing of a finished trace.
@pytest.mark.parametrize("largest_file", [6_000, 60_000])
def test_a_full_disk_loses_nothing(tmp_path: Path, undisturbed: Path, largest_file: int) -> None:
    directory = tmp_path / "run"
    done = audit(directory, largest_file=largest_file)
    assert done.returncode == 3, done.stderr
    assert "error:" in done.stderr and "next:" in done.stderr
    assert "Traceback" not in done.stderr
    resumed = audit(directory, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert figures(directory) == figures(undisturbed)
