"""Whole or not at all: what is on the disk when a write counts as done."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from mismatchscope.durable import sync_directory, sync_files, write_atomic


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was synced, in order: the names of files, and of directories with a slash."""
    seen: list[str] = []
    real_sync, real_replace = os.fsync, os.replace

    def sync(descriptor: int) -> None:
        name = Path(os.readlink(f"/proc/self/fd/{descriptor}")).name
        seen.append(name + "/" * stat.S_ISDIR(os.fstat(descriptor).st_mode))
        real_sync(descriptor)

    def replace(source: Path, target: Path) -> None:
        seen.append(f"-> {target.name}")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace)
    return seen


def test_the_file_is_on_the_disk_before_it_has_its_name_and_the_name_before_it_is_done(
    tmp_path: Path, synced: list[str]
) -> None:
    write_atomic(tmp_path / "part", b"content")
    assert synced == [f".part.{os.getpid()}.tmp", "-> part", f"{tmp_path.name}/"]
    assert (tmp_path / "part").read_bytes() == b"content" and len([*tmp_path.iterdir()]) == 1


def test_what_no_later_run_reads_is_not_synced(tmp_path: Path, synced: list[str]) -> None:
    write_atomic(tmp_path / "message", b"content", durable=False)
    assert synced == ["-> message"]


def test_many_files_share_the_sync_of_their_directory(tmp_path: Path, synced: list[str]) -> None:
    for name in ("a", "b"):
        write_atomic(tmp_path / name, b"content", durable=False)
    synced.clear()
    sync_files([tmp_path / "a", tmp_path / "b"])
    assert synced == ["a", "b", f"{tmp_path.name}/"]


def test_the_old_file_stays_where_the_new_one_does_not_reach_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(tmp_path / "file", b"new")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("file", b"old")]


@pytest.mark.parametrize(("number", "passes"), [(errno.EINVAL, True), (errno.ENOTSUP, True), (errno.EIO, False)])
def test_a_file_system_that_cannot_sync_directories_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, passes: bool
) -> None:
    def refuse(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    if passes:
        sync_directory(tmp_path)
    else:
        with pytest.raises(OSError, match=os.strerror(number)):
            sync_directory(tmp_path)
