"""A compiled engine that will fail says so at once."""

from __future__ import annotations

import sysconfig
import time
from pathlib import Path

import command
import pytest

from mismatchscope.engines.common import compiler
from mismatchscope.engines.common.compiler import check_compiler
from mismatchscope.errors import EngineError


@pytest.fixture(autouse=True)
def without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "hardware", lambda: {"gpus": []})
    monkeypatch.delenv("CXX", raising=False)


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def refusal() -> EngineError:
    with pytest.raises(EngineError) as caught:
        check_compiler("vLLM", "vllm:enforce_eager=true")
    assert caught.value.hint.startswith("vllm:enforce_eager=true; or ")
    return caught.value


def test_a_compiler_that_works_is_no_reason_to_stop() -> None:
    check_compiler("vLLM", "vllm:enforce_eager=true")


def test_a_compiler_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "no-such"))
    assert refusal().message.endswith("no-such cannot be started.")


def test_headers_that_are_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / "nowhere"))
    error = refusal()
    assert error.message.endswith(f"the headers of Python are not in {tmp_path / 'nowhere'}.")
    assert "python3-dev" in error.hint


def test_a_compiler_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", script(tmp_path / "cxx", "echo 'cc1plus: not found' >&2; exit 1"))
    assert refusal().message.endswith("does not work: cc1plus: not found")


def test_on_a_gpu_the_compiler_of_c_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(compiler, "hardware", lambda: {"gpus": ["H100"]})
    monkeypatch.setenv("CC", script(tmp_path / "cc", 'echo "$@" >&2; exit 1'))
    assert "-x c -fsyntax-only" in refusal().message


def test_an_audit_says_so_in_seconds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "no-such"))
    began = time.monotonic()
    done = command.run("audit", "--behavior", "transformers:compile=true", "--limit", "1", "-o", tmp_path / "run")
    assert done.returncode == 3
    assert "next: transformers:compile=false; or install g++" in done.stderr
    assert time.monotonic() - began < 100
