"""The installed command, resumed where an interrupted audit left things in pieces, or where inputs have changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from command import run

pytestmark = pytest.mark.slow

AUDIT = [
    *("audit", "--behavior", "synthetic:noise=0.003", "--reference", "synthetic:noise=0.003,tv=0.05"),
    *("--max-new-tokens", "16", "--samples", "2", "--prompts"),
]


def audit(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(*AUDIT, directory / "prompts.txt", "-o", directory / "run", *arguments)


def figures(directory: Path) -> dict:
    report = json.loads((directory / "run" / "report.json").read_text())
    return {key: report[key] for key in ("finding", "counts", "alpha1", "token", "sequence", "floor", "worst")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("damaged") / "finished"
    directory.mkdir()
    (directory / "prompts.txt").write_text("".join(f"prompt {number}\n" for number in range(6)))
    done = audit(directory)
    assert done.returncode == 0, done.stderr
    return directory


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """The finished audit once more, at another path, which is part of no manifest."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def unfinished(directory: Path) -> Path:
    """Leave the reference of an audit as a kill would between its manifest and its first sequence."""
    reference = directory / "run" / "reference"
    manifest = json.loads((reference / "manifest.json").read_text())
    for file in reference.iterdir():
        file.unlink()
    (reference / "parts").mkdir()
    (reference / "manifest.json").write_text(json.dumps(manifest | {"complete": False, "files": {}, "counts": {}}))
    return reference


def test_a_finished_audit_is_measured_again_with_another_confidence_and_gate(copy: Path) -> None:
    done = audit(copy, "--resume", "--confidence", "0.9", "--tail", "--fail-on", "token.tv.mean > 0.5")
    assert done.returncode == 0, done.stderr
    assert "loading the model" not in done.stderr
    report = json.loads((copy / "run" / "report.json").read_text())
    assert report["alpha1"]["mean"]["confidence"] == 0.9 and report["gates"]


def test_a_damaged_part_and_manifest_and_run_file_end_with_the_same_figures(finished: Path, copy: Path) -> None:
    reference = unfinished(copy)
    (reference / "parts" / "000000004.safetensors").write_bytes(b"half a sequence")
    (copy / "run" / "run.json").write_bytes(b"")
    os.truncate(copy / "run" / "report.json", 100)
    done = audit(copy, "--resume")
    assert done.returncode == 0, done.stderr
    for name in ("run.json", "reference/parts/000000004.safetensors"):
        assert f"{copy / 'run' / name} " in done.stderr and "it is made again" in done.stderr
    assert "000000004.safetensors" in (copy / "run" / "logs" / "reference.log").read_text()
    assert figures(copy) == figures(finished)
    reference = unfinished(copy)
    (reference / "manifest.json").write_bytes(b'{"schema_version": 1, "eng')
    done = audit(copy, "--resume", "-q")
    assert done.returncode == 0, done.stderr
    assert "manifest.json cannot be read" in (copy / "run" / "logs" / "reference.log").read_text()
    assert figures(copy) == figures(finished)


def changed_prompts(directory: Path) -> None:
    (directory / "prompts.txt").write_text("".join(f"another prompt {number}\n" for number in range(6)))


CHANGES: dict[str, tuple[Callable[[Path], object], int, str]] = {
    "prompts": (changed_prompts, 2, "behavior holds another trace: prompts_sha256"),
    "no run.json": (lambda directory: (directory / "run" / "run.json").unlink(), 2, "but no run.json"),
    "altered tokens": (
        lambda directory: os.truncate(directory / "run" / "reference" / "tokens.parquet", 900),
        3,
        "reference/tokens.parquet is truncated or altered",
    ),
    "altered distributions": (
        lambda directory: os.truncate(directory / "run" / "behavior" / "distributions.safetensors", 9000),
        3,
        "behavior/distributions.safetensors is truncated or altered",
    ),
    "a manifest in pieces": (
        lambda directory: os.truncate(directory / "run" / "behavior" / "manifest.json", 300),
        3,
        "behavior/manifest.json cannot be used",
    ),
    "no behavior": (
        lambda directory: shutil.rmtree(directory / "run" / "behavior"),
        2,
        "run/behavior, and those are not there any more",
    ),
    "no manifest": (
        lambda directory: (directory / "run" / "behavior" / "manifest.json").unlink(),
        2,
        "behavior has sequences but no manifest.json",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_old_figures_are_not_returned_for_what_has_changed(copy: Path, change: str) -> None:
    alter, code, says = CHANGES[change]
    alter(copy)
    before = (copy / "run" / "report.json").read_bytes()
    done = audit(copy, "--resume")
    assert done.returncode == code, done.stderr
    assert says in done.stderr and "next:" in done.stderr and "Unexpected" not in done.stderr
    assert (copy / "run" / "report.json").read_bytes() == before
