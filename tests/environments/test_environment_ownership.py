"""Nothing of an environment runs that somebody else could have written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mismatchscope.engines.spec import EngineSpec
from mismatchscope.environments import Environment, create, describe, interpreter, remove
from mismatchscope.errors import EnvironmentBrokenError, MismatchScopeError

pytestmark = pytest.mark.slow

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")
STRANGER = 54321


def site_packages(path: Path) -> Path:
    return next(path.glob("lib/python*/site-packages"))


def startup_file(path: Path) -> Path:
    """A file whose lines Python runs when it starts, as it would lie there."""
    file = site_packages(path) / "theirs.pth"
    file.write_text("import os; os.write(2, b'FOREIGN CODE RAN')")
    return file


def module(path: Path) -> Path:
    return site_packages(path) / "toyengine" / "__init__.py"


PLACES: list[Callable[[Path], Path]] = [
    lambda path: path.parent.parent,  # the home of them all
    lambda path: path.parent,
    lambda path: path,
    lambda path: path / "bin",
    lambda path: path / "pyvenv.cfg",
    site_packages,
    startup_file,
    module,
]


def refused(environment: Environment, place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(EnvironmentBrokenError, match="what is in it would run, and ") as error:
        environment.examine()
    assert str(place) in error.value.message
    assert "env remove toy==1.0.0" in (error.value.hint or "")
    with pytest.raises(EnvironmentBrokenError):
        interpreter(EngineSpec("toy", "1.0.0"))
    assert [row["broken"] for row in describe()] == [error.value.message]
    assert "FOREIGN" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("where", PLACES)
def test_what_everybody_can_write_is_not_run(
    environment: Environment, where: Callable[[Path], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    place = where(environment.path)
    place.chmod(place.stat().st_mode | 0o002)
    refused(environment, place, capfd)


def test_a_sticky_directory_may_hold_environments_and_may_not_be_one(
    environment: Environment, capfd: pytest.CaptureFixture[str]
) -> None:
    environment.path.parent.parent.chmod(0o1777)
    assert environment.examine()["version"] == "1.0.0"
    site_packages(environment.path).chmod(0o1777)
    refused(environment, site_packages(environment.path), capfd)


@needs_root
@pytest.mark.parametrize("where", PLACES)
def test_what_belongs_to_another_is_not_run(
    environment: Environment, where: Callable[[Path], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    place = where(environment.path)
    os.chown(place, STRANGER, -1)
    refused(environment, place, capfd)


@needs_root
def test_an_interpreter_of_another_is_not_run(
    environment: Environment, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    theirs = tmp_path / "python"
    theirs.write_text("#!/bin/sh\necho FOREIGN CODE RAN >&2\n")
    theirs.chmod(0o755)
    os.chown(theirs, STRANGER, -1)
    environment.python.unlink()
    environment.python.symlink_to(theirs)
    refused(environment, theirs, capfd)


def test_a_home_that_others_can_write_is_refused_before_anything_is_made(home: Path) -> None:
    home.mkdir()
    home.chmod(0o777)
    with pytest.raises(MismatchScopeError, match=f"everybody can write {home}") as error:
        create("toy")
    assert "MISMATCHSCOPE_HOME" in (error.value.hint or "")
    assert [path.name for path in home.rglob("*")] == ["environments"]


def test_an_environment_is_closed_to_others_whatever_the_umask(home: Path) -> None:
    before = os.umask(0)
    try:
        environment = create("toy", "1.1.0")
        assert os.umask(0) == 0
    finally:
        os.umask(before)
    assert environment.examine()["version"] == "1.1.0"


def test_a_lock_that_is_a_link_is_not_opened(environment: Environment, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    lock = environment.path.with_name(".toy-1.0.0.lock")
    lock.symlink_to(precious)
    for change in (remove, create):
        with pytest.raises(MismatchScopeError, match="is a symbolic link, so it is not used"):
            change("toy", "1.0.0")
    assert precious.read_text() == "mine"
    assert environment.examine()


def test_what_is_only_linked_to_is_not_removed(environment: Environment, tmp_path: Path) -> None:
    elsewhere = environment.path.rename(tmp_path / "elsewhere")
    environment.path.symlink_to(elsewhere)
    with pytest.raises(MismatchScopeError, match="is a link, no environment that was made here"):
        remove("toy", "1.0.0")
    assert (elsewhere / "environment.json").exists()
