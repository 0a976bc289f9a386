"""What a user gets: a wheel, installed alone in a fresh environment, without torch and without the HTML extra."""

from __future__ import annotations

import email
import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import mismatchscope

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
    done = run(programs / "python", "-m", "pip", "install", "--quiet", str(wheel))
    assert done.returncode == 0, done.stderr
    return programs


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program of that environment, with nothing of this one on its path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [program, *arguments], env=environment, cwd=program.parent, capture_output=True, text=True, check=False
    )


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


def test_the_metadata_has_the_version_the_licence_and_the_extras(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (info,) = {name.partition("/")[0] for name in archive.namelist() if ".dist-info/" in name}
        metadata = email.message_from_bytes(archive.read(f"{info}/METADATA"))
        assert archive.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert metadata["Version"] == mismatchscope.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert {"torch", "report", "vllm", "sglang", "all"} <= set(metadata.get_all("Provides-Extra"))


def test_it_runs_without_torch_and_without_the_extras(installed: Path, tmp_path: Path) -> None:
    synthetic = ["--behavior", "synthetic", "--reference", "synthetic:tv=0.05", "--limit", "8"]
    done = run(installed / "mismatchscope", "audit", *synthetic, "-o", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert "report.html is left out" in done.stderr
    assert "pip install 'mismatchscope[report]'" in done.stderr
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["finding"]["code"] == "above_floor"


@pytest.mark.parametrize(
    "arguments", [[], ["--behavior", "transformers:dtype=float32", "--reference", "synthetic"]]
)
def test_a_model_without_torch_is_one_sentence(installed: Path, tmp_path: Path, arguments: list[str]) -> None:
    done = run(installed / "mismatchscope", "audit", "-q", "-o", str(tmp_path / "run"), *arguments)
    assert done.returncode == 3
    assert "needs the package torch, which is not installed" in done.stderr
    assert "next: pip install 'mismatchscope[torch]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_run_once_by_uvx_the_command_is_one_of_uvx(installed: Path, tmp_path: Path) -> None:
    cache = tmp_path / "uv" / "archive-v0"
    cache.mkdir(parents=True)
    (cache / "Wq3fJ0").symlink_to(installed.parent)  # where uvx keeps what it runs once
    done = run(cache / "Wq3fJ0" / "bin" / "python", "-m", "mismatchscope", "audit", "-o", str(tmp_path / "run"))
    assert done.returncode == 3
    assert f"next: uvx --from 'mismatchscope[torch]' mismatchscope audit -o {tmp_path / 'run'}" in done.stderr


def test_doctor_names_what_to_install(installed: Path) -> None:
    done = subprocess.run(
        [installed / "mismatchscope", "doctor", "--json"], capture_output=True, text=True, check=True
    )
    engines = {row["engine"]: row for row in json.loads(done.stdout)["engines"]}
    assert not engines["transformers"]["ready"]
    assert "pip install 'mismatchscope[torch]'" in engines["transformers"]["why"]
    assert engines["synthetic"]["ready"]
