"""Making environments: with the real pip and no network, killed, locked, refused."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
import toy

from mismatchscope.environments import Environment, create, find, installed, remove
from mismatchscope.environments.build import Build
from mismatchscope.errors import DiskFullError, EnvironmentBrokenError, InstallError, MismatchScopeError, SpecError

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def creator(version: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that creates the toy environment, in a process group of its own."""
    process = subprocess.Popen(
        [sys.executable, toy.__file__, version],
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for_sleeper(events: IO[str]) -> int:
    """The process id of the toy engine that sleeps in the last step, when everything is installed."""
    for line in events:
        if found := re.fullmatch(r"asleep in (\d+)", json.loads(line).get("line", "")):
            return int(found[1])
    raise AssertionError("the creation ended before its last step")


def leftovers(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "environments").iterdir() if not path.name.startswith("."))


def test_what_was_made_is_found_and_works(created: tuple[Environment, list[dict]]) -> None:
    environment, events = created
    done = subprocess.run(
        [environment.python, "-c", "import toyengine, sys; print(sys.prefix)"], capture_output=True
    )
    assert Path(os.fsdecode(done.stdout.strip())) == environment.path
    expected = {"version": "1.0.0", "torch": "2.9.0+cpu", "transformers": None, "device": "cpu"}
    assert environment.facts.items() >= expected.items()
    assert environment.examine().items() >= expected.items()
    assert [event["name"] for event in events if event["event"] == "step"] == [
        "make the virtual environment",
        "install toyengine",
        "check that it imports",
    ]
    log = Path(environment.facts["log"]).read_text()
    assert "Successfully installed torch-2.9.0+cpu toyengine-1.0.0" in log


def test_progress_counts_the_lines_of_the_log(created: tuple[Environment, list[dict]]) -> None:
    alive = [event for event in created[1] if event["event"] == "alive"]
    assert any(event["lines"] > 0 and event["line"] for event in alive)
    assert all(event["seconds"] >= 0 for event in alive)


def test_what_is_there_is_not_made_again(environment: Environment) -> None:
    events: list[dict] = []
    assert create("toy", "1.0.0", events.append).path == environment.path
    assert events == []


def test_without_a_version_the_tried_one_is_made(home: Path) -> None:
    assert str(create("toy")) == "toy==1.1.0"


def test_what_is_there_and_broken_is_not_taken_for_made(environment: Environment) -> None:
    environment.python.unlink()
    with pytest.raises(EnvironmentBrokenError):
        create("toy", "1.0.0")


@pytest.mark.parametrize(
    ("version", "message", "hint"),
    [
        ("1.0.7", "pip offers no toyengine 1.0.7", "the nearest versions are 1.0.0, 1.1.0"),
        ("1.2.0", "toyengine needs Python >=9", "with that Python"),
        ("banana", "'banana' is not a version", "vllm==0.32.0"),
    ],
)
def test_a_version_that_cannot_be_had(home: Path, version: str, message: str, hint: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)) as error:
        create("toy", version)
    assert hint in error.value.hint
    assert installed() == []
    assert not (home / "environments").exists() or leftovers(home) == []


def test_no_network_is_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nobody listens on the discard port
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(InstallError, match="cannot reach its package index") as error:
        create("toy", "1.1.0")
    assert str(home / "logs") in error.value.hint


def test_an_engine_that_does_not_import_leaves_nothing_but_its_log(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_BREAKS", "1")
    with pytest.raises(InstallError, match="'check that it imports' ended with exit status 1") as error:
        create("toy", "1.1.0")
    assert "libtoy.so: undefined symbol" in error.value.log_tail
    assert "libtoy.so: undefined symbol" in Path(error.value.log_path).read_text()
    assert leftovers(home) == []


def test_a_full_disk_is_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("mismatchscope.environments.store.write_atomic", full)
    with pytest.raises(DiskFullError, match="is full") as error:
        create("toy", "1.1.0")
    assert "MISMATCHSCOPE_HOME" in error.value.hint
    assert leftovers(home) == []


def test_an_interrupt_ends_the_command_and_leaves_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_SLEEP", "60")
    sleeper = None

    def interrupt(event: dict) -> None:
        nonlocal sleeper
        if found := re.fullmatch(r"asleep in (\d+)", event.get("line", "")):
            sleeper = int(found[1])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        create("toy", "1.1.0", interrupt)
    assert leftovers(home) == []
    with pytest.raises(ProcessLookupError):
        os.kill(sleeper, 0)


def test_a_killed_creation_leaves_nothing_usable_and_the_next_one_succeeds(home: Path) -> None:
    with creator("1.1.0", TOY_SLEEP="60") as process:
        sleeper = wait_for_sleeper(process.stdout)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert find("toy") is None
        assert installed() == []
        # The command that it had started lives on, and so does the lock.
        with pytest.raises(MismatchScopeError, match=rf"toy-1\.1\.0 is being made by process {process.pid} "):
            remove("toy", "1.1.0")
        os.kill(sleeper, signal.SIGKILL)
    left = home / "environments" / "toy-1.1.0" / "of-the-killed-one"
    left.touch()
    environment = create("toy", "1.1.0")
    assert environment.examine()["version"] == "1.1.0"
    assert not left.exists()


def test_what_a_killed_creation_left_can_be_removed(home: Path) -> None:
    (home / "environments" / "toy-1.1.0" / "bin").mkdir(parents=True)
    remove("toy", "1.1.0")
    assert leftovers(home) == []


@pytest.mark.slow
def test_two_creators_take_turns(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[dict] = []
    with creator("1.1.0", TOY_SLEEP="1") as process:
        wait_for_sleeper(process.stdout)
        environment = create("toy", "1.1.0", events.append)
        assert environment.path == home / "environments" / "toy-1.1.0"
        assert {event["event"] for event in events} == {"locked"}
        assert process.wait() == 0


def test_variables_that_would_install_elsewhere_are_not_passed_on(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    for name in ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PYTHONPATH"):
        monkeypatch.setenv(name, str(elsewhere))
    monkeypatch.setenv("PIP_USER", "1")
    assert create("toy", "1.1.0").examine()["version"] == "1.1.0"
    assert not elsewhere.exists()


def test_a_machine_with_a_gpu_gets_the_official_package(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def pip_install(self: Build, *arguments: str, step: str) -> None:
        asked.extend(arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr("mismatchscope.environments.store.hardware", lambda: {"gpus": [{"name": "some GPU"}]})
    monkeypatch.setattr(Build, "pip_install", pip_install)
    for name in ("vllm", "sglang"):
        with pytest.raises(KeyboardInterrupt):
            create(name, "0.4.0")
    assert asked == ["vllm==0.4.0", "sglang==0.4.0"]


def test_a_home_that_cannot_be_written_is_named(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MISMATCHSCOPE_HOME", str(tmp_path / "file"))
    with pytest.raises(MismatchScopeError, match="Nothing can be written in") as error:
        create("toy")
    assert "MISMATCHSCOPE_HOME" in error.value.hint
