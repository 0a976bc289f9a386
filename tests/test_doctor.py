"""`doctor`: which engines can run here, where, and what to type for those that cannot."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest
from installed_here import install
from rich.console import Console

from mismatchscope import doctor, machine
from mismatchscope.environments import resolve


@pytest.fixture(autouse=True)
def bare_machine(tmp_path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A machine without environments, and the versions of what is installed in this interpreter: nothing yet."""
    versions: dict[str, str] = {}
    monkeypatch.setenv("MISMATCHSCOPE_HOME", str(tmp_path))
    monkeypatch.setattr(doctor, "package_version", versions.get)
    monkeypatch.setattr(resolve, "package_version", versions.get)
    return versions


def engine(facts: dict[str, Any], name: str) -> dict[str, Any]:
    return next(row for row in facts["engines"] if row["engine"] == name)


def shown(facts: dict[str, Any]) -> str:
    console = Console(file=io.StringIO(), width=200)
    doctor.show_facts(facts, console)
    return console.file.getvalue()


def test_what_is_missing_comes_with_its_command() -> None:
    facts = doctor.examine()
    assert engine(facts, "transformers")["why"] == "missing torch, transformers: pip install 'mismatchscope[torch]'"
    here = "vllm is not installed in this interpreter"
    missing = f"{here}, and there is no environment: mismatchscope env create vllm"
    assert engine(facts, "vllm")["why"] == missing
    assert engine(facts, "vllm")["interpreter"] is None
    text = shown(facts)
    assert "pip install 'mismatchscope[torch]'" in text
    assert "mismatchscope env create vllm" in text
    assert engine(facts, "synthetic")["ready"], "it needs nothing"


def test_an_engine_at_hand_is_ready_and_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, tmp_path / "site", "vllm", "0.32.0+cpu")
    monkeypatch.setattr(resolve, "package_version", machine.package_version)
    row = engine(facts := doctor.examine(), "vllm")
    assert (row["ready"], row["version"], row["interpreter"], row["why"]) == (True, "0.32.0", "own", None)
    assert (row["executable"], row["reason"]) == (sys.executable, "it is installed in this interpreter")
    (line,) = [line for line in shown(facts).splitlines() if line.startswith("  vllm ")]
    assert "ready" in line
    assert "in this interpreter" in line


def test_what_is_at_hand_is_named_before_an_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a SPEC without a version would choose."""
    environment = {"name": "vllm", "version": "0.32.0", "broken": None, "interpreter": "/x/bin/python"}
    environment |= {"torch": "2.13.0", "transformers": None, "device": "cpu", "variables": {}, "hint": None}
    monkeypatch.setattr(doctor, "describe", lambda: [environment])
    row = engine(facts := doctor.examine(), "vllm")
    assert (row["version"], row["interpreter"]) == ("0.32.0", "environment")
    assert (row["executable"], row["reason"]) == ("/x/bin/python", "vllm is not installed in this interpreter")
    assert "in its newest environment (vllm is not installed in this interpreter)" in shown(facts)
    install(monkeypatch, tmp_path / "site", "vllm", "0.27.1")
    monkeypatch.setattr(resolve, "package_version", machine.package_version)
    row = engine(doctor.examine(), "vllm")
    assert (row["version"], row["interpreter"]) == ("0.27.1", "own")


def test_an_engine_at_hand_that_does_not_import_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = "raise ImportError('libcudart.so.13: cannot open shared object file')"
    install(monkeypatch, tmp_path / "site", "vllm", "0.32.0", source=broken)
    monkeypatch.setattr(resolve, "package_version", machine.package_version)
    row = engine(facts := doctor.examine(), "vllm")
    assert (row["ready"], row["version"], row["interpreter"]) == (False, "0.32.0", "own")
    assert "importing it fails: ImportError: libcudart.so.13" in row["why"]
    assert "vllm:python=PATH runs another" in shown(facts)


def test_metadata_without_a_module_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, tmp_path / "site", "vllm", "0.32.0", module=False)
    monkeypatch.setattr(resolve, "package_version", machine.package_version)
    assert engine(doctor.examine(), "vllm")["why"].startswith(
        "of vllm 0.32.0 this interpreter has the metadata alone"
    )


def test_a_newest_environment_that_is_broken_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A SPEC without a version does not take an older one either."""
    rows = [
        {"name": "vllm", "version": "0.32.0", "broken": "torch is gone.", "hint": "make it anew"},
        {"name": "vllm", "version": "0.27.1", "broken": None, "hint": None},
    ]
    common = {"torch": None, "transformers": None, "device": "cpu", "variables": {}, "interpreter": "/x/bin/python"}
    monkeypatch.setattr(doctor, "describe", lambda: [row | common for row in rows])
    row = engine(doctor.examine(), "vllm")
    assert (row["ready"], row["version"], row["why"]) == (False, "0.32.0", "torch is gone. next: make it anew")


def test_a_broken_environment_does_not_make_an_engine_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = {"name": "vllm", "version": "0.32.0", "broken": "its interpreter is gone", "hint": "make it anew"}
    broken["interpreter"] = "/x/bin/python"
    monkeypatch.setattr(doctor, "describe", lambda: [broken])
    row = engine(facts := doctor.examine(), "vllm")
    assert not row["ready"]
    assert "its interpreter is gone" in shown(facts)
