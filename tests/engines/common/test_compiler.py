"""A compiled engine that will fail says so at once."""

from __future__ import annotations

import importlib.util
import os
import sysconfig
import time
from pathlib import Path

import command
import pytest

from mismatchscope.engines.common.compiler import check_compiler
from mismatchscope.errors import EngineError

CACHES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "VLLM_CACHE_ROOT")


@pytest.fixture(autouse=True)
def usual_compilers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("CC", "CXX", "TORCH_COMPILE_DISABLE", "TORCHDYNAMO_DISABLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in CACHES:
        monkeypatch.setenv(name, str(tmp_path / name))


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def refusal(*, gpu: bool = False) -> EngineError:
    with pytest.raises(EngineError) as caught:
        check_compiler("vLLM", "vllm:enforce_eager=true", gpu=gpu)
    assert caught.value.hint.startswith("vllm:enforce_eager=true; or ")
    return caught.value


def test_a_compiler_that_works_is_no_reason_to_stop() -> None:
    check_compiler("vLLM", "vllm:enforce_eager=true", gpu=False)


def test_caches_of_compiled_code_that_others_can_write_are_not_used(tmp_path: Path) -> None:
    check_compiler("vLLM", "vllm:enforce_eager=true", gpu=False)
    assert [os.environ[name] for name in CACHES] == [str(tmp_path / name) for name in CACHES]
    for name in CACHES:
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o777)
    check_compiler("vLLM", "vllm:enforce_eager=true", gpu=False)
    own = [tmp_path / "cache" / "mismatchscope" / name.lower() for name in CACHES]
    assert [os.environ[name] for name in CACHES] == [str(path) for path in own]
    assert [path.stat().st_mode & 0o777 for path in own] == [0o700] * 3


def test_inductor_does_not_compile_into_a_name_that_anybody_may_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    check_compiler("vLLM", "vllm:enforce_eager=true", gpu=False)
    assert Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]).is_relative_to(tmp_path / "cache")


@pytest.mark.parametrize("name", ["TORCH_COMPILE_DISABLE", "TORCHDYNAMO_DISABLE"])
def test_nothing_is_asked_where_nothing_is_compiled(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "no-such"))
    monkeypatch.setenv(name, "1")
    check_compiler("vLLM", "vllm:enforce_eager=true", gpu=False)


def test_a_compiler_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "no-such"))
    assert refusal().message.endswith("no-such cannot be started.")


def test_headers_that_are_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / "nowhere"))
    error = refusal()
    assert error.message.endswith(f"the compiler g++ finds no Python.h in {tmp_path / 'nowhere'}.")
    assert "python3-dev" in error.hint


def test_a_compiler_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", script(tmp_path / "cxx", "echo 'cc1plus: not found' >&2; exit 1"))
    assert refusal().message.endswith("does not work: cc1plus: not found")


def test_openmp_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    complaint = "<stdin>:3:10: fatal error: omp.h: No such file or directory"
    monkeypatch.setenv("CXX", script(tmp_path / "cxx", f"echo '{complaint}' >&2; exit 1"))
    assert refusal().message.endswith(" finds no omp.h.")


def test_a_linker_that_fails_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What compiles may still not link, as where libgomp or the linker is missing."""
    linker = tmp_path / "ld"
    script(linker, "echo 'cannot find -lgomp' >&2; exit 1")
    monkeypatch.setenv("CXX", script(tmp_path / "cxx", f'exec g++ -B{tmp_path}/ "$@"'))
    assert "does not work" in refusal().message


def test_on_a_gpu_the_compiler_of_c_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setenv("CC", script(tmp_path / "cc", 'echo "$@" >&2; exit 1'))
    assert "-x c -shared" in refusal(gpu=True).message
    monkeypatch.delenv("CC")
    check_compiler("vLLM", "vllm:enforce_eager=true", gpu=True)


def test_on_a_gpu_triton_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "has no triton" in refusal(gpu=True).message


@pytest.mark.slow
def test_an_audit_says_so_in_seconds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "no-such"))
    began = time.monotonic()
    done = command.run("audit", "--behavior", "transformers:compile=true", "--limit", "1", "-o", tmp_path / "run")
    assert done.returncode == 3
    assert "next: transformers:compile=false; or install g++" in done.stderr
    assert time.monotonic() - began < 100
