"""What a user gets: a wheel, installed alone in a fresh environment, without torch and without the HTML extra."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # A copy: setuptools would put what an earlier build left behind into the wheel as well.
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "*.egg-info"), dirs_exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", out, source], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of programs of an environment that holds the wheel and its core dependencies alone."""
    environment = tmp_path_factory.mktemp("venv")
    venv.create(environment, with_pip=True)
    programs = environment / "bin"
    subprocess.run([programs / "python", "-m", "pip", "install", "--quiet", wheel], check=True)
    return programs


def test_embedded_models_ship_and_are_small(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
    for model in ("dense", "moe"):
        files = {name: size for name, size in sizes.items() if name.startswith(f"mismatchscope/demo/{model}/")}
        assert f"mismatchscope/demo/{model}/model.safetensors" in files
        assert sum(files.values()) <= 12e6
    assert "mismatchscope/measures/full.c" in sizes
    assert "mismatchscope/measures/softmax.h" in sizes
    assert "mismatchscope/reports/report.schema.json" in sizes
    assert not any(name.startswith("tests/") for name in sizes)


def test_it_runs_without_torch_and_without_the_extras(installed: Path, tmp_path: Path) -> None:
    synthetic = ["--behavior", "synthetic", "--reference", "synthetic:tv=0.05", "--limit", "8"]
    done = subprocess.run(
        [installed / "mismatchscope", "audit", *synthetic, "-o", tmp_path / "run"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "report.html is left out" in done.stderr
    assert "pip install 'mismatchscope[report]'" in done.stderr
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["finding"]["code"] == "above_floor"


def test_a_model_without_torch_is_one_sentence(installed: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [installed / "mismatchscope", "audit", "-q", "-o", tmp_path / "run"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert "pip install 'mismatchscope[torch]'" in done.stderr
    assert "Traceback" not in done.stderr
