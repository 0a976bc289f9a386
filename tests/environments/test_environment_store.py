"""Finding, examining and removing environments, some of them broken by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mismatchscope import machine
from mismatchscope.environments import Environment, describe, find, installed, remove
from mismatchscope.environments.place import home as home_directory
from mismatchscope.errors import EnvironmentBrokenError, SpecError

pytestmark = pytest.mark.slow


def forge(environment: Environment, name: str, version: str) -> None:
    """A directory that looks like a finished environment of another version, with nothing in it."""
    path = environment.path.with_name(f"{name}-{version}")
    path.mkdir()
    (path / "environment.json").write_text(json.dumps(environment.facts | {"name": name, "version": version}))


def site_packages(environment: Environment) -> Path:
    return next(environment.path.glob("lib/python*/site-packages"))


def test_the_home_is_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MISMATCHSCOPE_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/me")
    assert home_directory() == Path("/var/cache/me/mismatchscope")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert home_directory() == Path.home() / ".cache/mismatchscope"
    monkeypatch.setenv("MISMATCHSCOPE_HOME", "/scratch/engines")
    assert home_directory() == Path("/scratch/engines")


def test_the_newest_version_is_meant_when_none_is_given(environment: Environment) -> None:
    for version in ("1.9.0", "1.10.0", "1.10.0rc1"):
        forge(environment, "toy", version)
    forge(environment, "another", "7.0")
    assert [str(one) for one in installed()] == [
        "another==7.0",
        "toy==1.10.0",
        "toy==1.10.0rc1",
        "toy==1.9.0",
        "toy==1.0.0",
    ]
    assert find("toy").version == "1.10.0"
    assert find("toy", "1.9").version == "1.9.0"
    assert find("toy", "2.0") is None
    assert find("third") is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"name": "toy"}', '{"name": "toy", "version": "?"}'])
def test_a_directory_that_is_not_ours_is_no_environment(environment: Environment, content: str) -> None:
    (environment.path / "environment.json").write_text(content)
    assert installed() == []


def remove_interpreter(environment: Environment) -> None:
    environment.python.unlink()


def dangling_interpreter(environment: Environment) -> None:
    environment.python.unlink()
    environment.python.symlink_to("/nowhere/python3")


def other_interpreter(environment: Environment) -> None:
    environment.python.unlink()
    environment.python.symlink_to("/bin/false")


def uninstall_engine(environment: Environment) -> None:
    shutil.rmtree(site_packages(environment) / "toyengine")
    shutil.rmtree(site_packages(environment) / "toyengine-1.0.0.dist-info")


def uninstall_torch(environment: Environment) -> None:
    shutil.rmtree(site_packages(environment) / "torch-2.9.0+cpu.dist-info")


def upgrade_engine(environment: Environment) -> None:
    metadata = site_packages(environment) / "toyengine-1.0.0.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("Version: 1.0.0", "Version: 1.1.0"))


def remove_a_file(environment: Environment) -> None:
    (site_packages(environment) / "toyengine" / "kernels.py").unlink()


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (remove_interpreter, "cannot be started: No such file or directory"),
        (dangling_interpreter, "cannot be started: No such file or directory"),
        (other_interpreter, "does not work"),
        (uninstall_engine, "the package toyengine is not installed in it"),
        (uninstall_torch, "the package torch is not installed in it"),
        (upgrade_engine, "it holds toyengine 1.1.0 now"),
        (remove_a_file, "toyengine/kernels.py is gone"),
    ],
)
def test_what_was_broken_by_hand_is_named_with_the_way_out(environment: Environment, damage, why: str) -> None:
    damage(environment)
    with pytest.raises(EnvironmentBrokenError) as error:
        environment.examine()
    assert why in error.value.message
    assert error.value.hint == "mismatchscope env remove toy==1.0.0 && mismatchscope env create toy==1.0.0"
    assert error.value.exit_code == 3
    assert [row["broken"] for row in describe()] == [error.value.message]


def test_compiled_files_may_go(environment: Environment) -> None:
    for directory in environment.path.rglob("__pycache__"):
        shutil.rmtree(directory)
    environment.examine()


def test_descriptions_are_json_and_tell_what_changes_the_numbers(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in machine.NUMERICS_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("VLLM_BATCH_INVARIANT", "1")
    (row,) = json.loads(json.dumps(describe()))
    assert row["interpreter"] == str(environment.python)
    assert row["variables"] == {"OMP_NUM_THREADS": "1"}  # vLLM's are not the toy engine's
    assert (row["version"], row["torch"], row["transformers"], row["device"]) == ("1.0.0", "2.9.0+cpu", None, "cpu")
    assert row["broken"] is None


def test_a_cuda_build_of_torch_is_told_from_its_own_record(environment: Environment) -> None:
    record = site_packages(environment) / "torch" / "version.py"
    record.write_text("cuda = '13.0'\nhip = None\n")
    assert environment.examine()["device"] == "cuda"


def test_remove_needs_no_version_where_there_is_one(environment: Environment) -> None:
    assert remove("toy") == environment.path
    assert not environment.path.exists()
    assert installed() == []


def test_remove_does_not_guess_between_versions(environment: Environment) -> None:
    forge(environment, "toy", "1.1.0")
    with pytest.raises(SpecError, match="2 environments of toy are there") as error:
        remove("toy")
    assert "mismatchscope env remove toy==1.0.0" in error.value.hint
    remove("toy", "1.1.0")
    assert [str(one) for one in installed()] == ["toy==1.0.0"]


@pytest.mark.parametrize(("name", "version"), [("toy", None), ("toy", "3.0"), ("nosuch", "1.0")])
def test_what_is_not_there_cannot_be_removed(home: Path, name: str, version: str | None) -> None:
    with pytest.raises(SpecError, match=r"There is no|No environments"):
        remove(name, version)
