"""Locks: who holds one is said, a killed holder holds none, and nothing but a lock file is opened as one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mismatchscope.errors import LockedError, UsageError
from mismatchscope.locking import Holder, locked, release, try_lock

HOLD = "import sys, pathlib, time\nfrom mismatchscope.locking import try_lock\n" + (
    "assert try_lock(pathlib.Path(sys.argv[1])) is not None\nprint('held', flush=True)\ntime.sleep(60)"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".lock"


@pytest.fixture
def holder(path: Path):
    """Another process that holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_who_holds_it_is_said(path: Path, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(LockedError) as error, locked(path, "the place"):
        pass
    message = error.value.message
    assert message.startswith(f"the place is in use by process {holder.pid} on {socket.gethostname()} since 20")
    assert f" (-c {path})." in message
    assert error.value.exit_code == 2


def test_a_killed_holder_holds_nothing(path: Path, holder: subprocess.Popen[str]) -> None:
    assert try_lock(path) is None
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert path.exists()  # and blocks nobody
    with locked(path, "the place"):
        assert json.loads(path.read_bytes())["pid"] == os.getpid()


def test_a_lock_is_taken_once_and_leaves_no_file(path: Path) -> None:
    with locked(path, "the place"):
        with pytest.raises(LockedError, match=f"process {os.getpid()}"), locked(path, "the place"):
            pass
        assert try_lock(path) is None
    assert not path.exists()
    lock = try_lock(path)
    assert lock is not None
    release(path, lock)


def test_a_holder_that_removes_its_file_leaves_no_lock_on_nothing(path: Path) -> None:
    """Who opened the file before it was removed must not take a lock that nobody else can see."""
    first = try_lock(path)
    assert first is not None
    path.unlink()
    second = try_lock(path)
    assert second is not None
    release(path, first)
    assert path.exists()
    assert try_lock(path) is None
    release(path, second)


@pytest.mark.parametrize("content", [b"", b"\0" * 99, b"[" * 100_000, b'{"pid": "x"}', b'{"pid": 1}', b"\xff"])
def test_a_holder_that_says_nothing_useful_holds_all_the_same(
    path: Path, holder: subprocess.Popen[str], content: bytes
) -> None:
    path.write_bytes(content)
    with pytest.raises(LockedError, match="another process"), locked(path, "the place"):
        pass


def link_to_a_file(path: Path) -> None:
    path.with_name("mine").write_text("mine")
    path.symlink_to(path.with_name("mine"))


def dangling_link(path: Path) -> None:
    path.symlink_to(path.with_name("made-by-lock"))


def second_name_of_a_file(path: Path) -> None:
    path.with_name("mine").write_text("mine")
    path.hardlink_to(path.with_name("mine"))


def pipe(path: Path) -> None:
    os.mkfifo(path)


def directory(path: Path) -> None:
    path.mkdir()


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize(
    "put", [link_to_a_file, dangling_link, second_name_of_a_file, pipe, directory, unix_socket]
)
def test_what_is_no_lock_file_is_left_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch, put: Callable[[Path], None]
) -> None:
    monkeypatch.chdir(path.parent)
    put(Path(path.name))
    before = {entry.name: entry.lstat().st_mode for entry in path.parent.iterdir()}
    with pytest.raises(UsageError, match="is not used") as error, locked(path, "the place"):
        pass
    assert str(path) in (error.value.hint or "")
    assert before == {entry.name: entry.lstat().st_mode for entry in path.parent.iterdir()}
    assert not path.with_name("mine").exists() or path.with_name("mine").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")
def test_a_lock_file_of_another_user_is_not_used(path: Path) -> None:
    path.write_text("theirs")
    os.chown(path, 54321, -1)
    with pytest.raises(UsageError, match="belongs to another user"), locked(path, "the place"):
        pass
    assert path.read_text() == "theirs"


def test_a_full_disk_is_no_reason_not_to_lock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with locked(path, "the place"):
        assert try_lock(path) is None


def test_a_key_of_the_command_line_is_not_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/bin/mismatchscope", "audit", "--behavior", "vllm:api_key=hunter2hunter2"])
    with locked(path, "the place"):
        assert "mismatchscope audit" in path.read_text()
        assert "hunter2" not in path.read_text()


def test_a_holder_is_shown_in_words() -> None:
    holder = Holder(7, "node", "mismatchscope audit", "2026-01-02T03:04:05+00:00")
    assert str(holder) == "process 7 on node since 2026-01-02T03:04:05+00:00 (mismatchscope audit)"
