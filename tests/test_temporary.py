"""Temporary directories: private, removed at their end, and at the next start where their process was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mismatchscope.temporary import remove_abandoned, temporary_directory

HOLD = (
    "import time\nfrom mismatchscope.temporary import temporary_directory\n"
    "with temporary_directory() as path:\n"
    "    (path / 'sub').mkdir(); (path / 'sub' / 'file').write_text('x')\n"
    "    print(path, flush=True); time.sleep(60)"
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this process and those that it starts have their temporary files."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


@pytest.fixture
def other(place: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Another process, and the temporary directory that it has."""
    process = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield process, Path(process.stdout.readline().strip())
    process.kill()
    process.communicate()


def test_nothing_is_left(place: Path) -> None:
    with temporary_directory() as first, temporary_directory() as second:
        assert first != second
        assert first.is_relative_to(place)
        assert first.stat().st_mode & 0o777 == 0o700
        (first / "file").write_text("x")
    assert list(place.iterdir()) == []
    with pytest.raises(KeyError), temporary_directory():
        raise KeyError
    assert list(place.iterdir()) == []


def test_what_a_killed_process_left_is_removed_by_the_next(
    place: Path, other: tuple[subprocess.Popen[str], Path]
) -> None:
    process, theirs = other
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert (theirs / "sub" / "file").exists()
    with temporary_directory() as ours:
        assert not theirs.exists()
        assert [path.name for path in ours.parent.iterdir() if path.is_dir()] == [ours.name]
    assert list(place.iterdir()) == []


def test_what_another_process_uses_stays(other: tuple[subprocess.Popen[str], Path]) -> None:
    _, theirs = other
    remove_abandoned()
    with temporary_directory():
        pass
    assert (theirs / "sub" / "file").exists()


def test_a_directory_that_lost_its_lock_file_is_removed(place: Path) -> None:
    with temporary_directory() as path:
        left = path.with_name("left")
        (left / "sub").mkdir(parents=True)
        remove_abandoned()
        assert not left.exists()
        assert path.exists()


def open_to_all(parent: Path) -> None:
    parent.mkdir()
    parent.chmod(0o777)


def link_elsewhere(parent: Path) -> None:
    parent.with_name("elsewhere").mkdir(mode=0o700)
    parent.symlink_to(parent.with_name("elsewhere"))


def a_file(parent: Path) -> None:
    parent.write_text("mine")


@pytest.mark.parametrize("put", [open_to_all, link_elsewhere, a_file])
def test_a_parent_that_is_not_ours_alone_is_not_used(place: Path, put) -> None:
    parent = place / f"mismatchscope-{os.geteuid()}"
    put(parent)
    if parent.is_dir():
        (parent / "theirs").mkdir()
    with temporary_directory() as path:
        assert path.parent == place
        assert path.stat().st_mode & 0o777 == 0o700
    assert not path.exists()
    assert not parent.is_dir() or (parent / "theirs").exists()


@pytest.mark.slow
def test_processes_that_begin_and_end_at_the_same_time_do_not_meet(place: Path) -> None:
    code = (
        "from mismatchscope.temporary import temporary_directory\n"
        "for _ in range(150):\n"
        "    with temporary_directory() as path:\n"
        "        (path / 'file').write_text('x'); assert (path / 'file').read_text() == 'x'"
    )
    workers = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(4)]
    assert [worker.wait(60) for worker in workers] == [0] * 4
    assert list(place.iterdir()) == []
