"""What the file system refuses becomes one of our errors with the file and the reason; nothing else does."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mismatchscope.errors import DiskFullError, TraceError, UsageError
from mismatchscope.file_errors import file_errors


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "file").touch()
    (tmp_path / "directory").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "act", "why"),
    [
        ("missing", Path.read_bytes, errno.ENOENT),
        ("file/below", Path.read_bytes, errno.ENOTDIR),
        ("directory", Path.read_bytes, errno.EISDIR),
        ("loop", Path.read_bytes, errno.ELOOP),
        ("n" * 300, Path.is_dir, errno.ENAMETOOLONG),
        ("file", Path.mkdir, errno.EEXIST),
        ("missing", Path.rmdir, errno.ENOENT),
    ],
)
def test_a_refusal_names_the_file_and_the_reason(
    place: Path, name: str, act: Callable[[Path], object], why: int
) -> None:
    with pytest.raises(UsageError) as raised, file_errors("It cannot be used", hint="elsewhere", kind=UsageError):
        act(place / name)
    assert raised.value.message == f"It cannot be used: {os.strerror(why)} ({place / name})."
    assert raised.value.hint == "elsewhere"


def test_a_full_disk_is_one_whatever_was_done() -> None:
    with pytest.raises(DiskFullError, match="No space left"), file_errors("x", hint="y", kind=TraceError):
        os.write(os.open("/dev/full", os.O_WRONLY), b"x")


def test_a_function_can_be_within_it(place: Path) -> None:
    @file_errors("It cannot be read", hint="elsewhere", kind=TraceError)
    def read(name: str) -> bytes:
        return (place / name).read_bytes()

    assert read("file") == b""
    for _ in range(2):  # each call has a guard of its own
        with pytest.raises(TraceError):
            read("missing")


@pytest.mark.parametrize(
    "fault", [KeyError("key"), IndexError(1), ValueError("text"), TypeError(), OSError("no number"), RuntimeError()]
)
def test_our_own_faults_stay_what_they_are(fault: Exception) -> None:
    with pytest.raises(type(fault)) as raised, file_errors("x", hint="y"):
        raise fault
    assert raised.value is fault


@pytest.mark.parametrize("kind", [BrokenPipeError, ConnectionResetError, TimeoutError, ChildProcessError])
def test_pipes_sockets_and_processes_are_no_files(kind: type[OSError]) -> None:
    with pytest.raises(kind), file_errors("x", hint="y"):
        raise kind(errno.EPIPE, "gone")
