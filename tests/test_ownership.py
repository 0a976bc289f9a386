"""Who else could change a file: through its own mode, a directory above it, or a link on the way."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from mismatchscope import ownership
from mismatchscope.ownership import why_unsafe

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")
STRANGER = 54321


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of our own, two directories down."""
    file = tmp_path / "outer" / "inner" / "library.so"
    file.parent.mkdir(parents=True, mode=0o755)
    file.parent.parent.chmod(0o755)
    file.write_text("code")
    file.chmod(0o644)
    return file


def test_what_is_ours_alone_is_safe(file: Path) -> None:
    assert why_unsafe(file) is None
    assert why_unsafe(file.parent) is None
    assert why_unsafe(file.with_name("not-there")) is None
    assert why_unsafe(file.parent / ".." / "inner" / "library.so") is None


@pytest.mark.parametrize("level", [0, 1, 2])
def test_what_everybody_can_write_is_named(file: Path, level: int) -> None:
    changeable = [file, *file.parents][level]
    changeable.chmod(0o777)
    assert why_unsafe(file) == f"everybody can write {changeable}"


@needs_root
@pytest.mark.parametrize("level", [0, 1, 2])
def test_what_belongs_to_another_is_named(file: Path, level: int) -> None:
    foreign = [file, *file.parents][level]
    os.chown(foreign, STRANGER, -1)
    assert why_unsafe(file) == f"{foreign} belongs to the user {STRANGER}"


@needs_root
@pytest.mark.parametrize("level", [0, 1, 2])
def test_what_another_group_can_write_is_named(file: Path, level: int) -> None:
    shared = [file, *file.parents][level]
    os.chown(shared, -1, STRANGER)
    shared.chmod(0o775)
    assert why_unsafe(file) == f"others in its group can write {shared}"


def test_a_group_of_the_user_alone_lets_nobody_in(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user = pwd.getpwuid(os.geteuid())
    os.chown(file.parent, -1, user.pw_gid)
    file.parent.chmod(0o775)
    assert why_unsafe(file) is None
    listed = [user, pwd.struct_passwd(("guest", "x", STRANGER, user.pw_gid, "", "/", "/bin/sh"))]
    monkeypatch.setattr(ownership.pwd, "getpwall", lambda: listed)
    shared = user.pw_gid != 0  # root's group has accounts of the system
    assert why_unsafe(file) == (f"others in its group can write {file.parent}" if shared else None)


def test_a_sticky_directory_may_stand_above_and_may_not_be_the_place(file: Path) -> None:
    file.parent.parent.chmod(0o1777)
    assert why_unsafe(file) is None
    assert why_unsafe(file.parent.parent) == f"everybody can write {file.parent.parent}"


def test_a_link_is_followed_and_every_step_of_it_looked_at(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(Path("outer") / "inner")
    assert why_unsafe(link / "library.so") is None
    file.parent.parent.chmod(0o777)
    assert why_unsafe(link / "library.so") == f"everybody can write {file.parent.parent}"


@needs_root
def test_a_link_of_another_is_named(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(file)
    os.chown(link, STRANGER, -1, follow_symlinks=False)
    assert why_unsafe(link) == f"{link} belongs to the user {STRANGER}"


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert "too many symbolic links" in (why_unsafe(tmp_path / "a") or "")
