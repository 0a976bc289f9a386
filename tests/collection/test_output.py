"""The directory that a run writes to: what is free, what may be replaced, what never is."""

from __future__ import annotations

from pathlib import Path

import pytest

from mismatchscope.collection.output import prepare_output
from mismatchscope.errors import OutputExistsError

MANIFEST = '{"schema_version": 1, "engine": "vllm", "policy": "raw"}'


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """A directory that a run of ours wrote."""
    directory = tmp_path / "run"
    directory.mkdir()
    (directory / "manifest.json").write_text(MANIFEST)
    return directory


@pytest.mark.parametrize(("force", "resume"), [(False, False), (True, False), (False, True)])
def test_what_is_not_there_is_made(tmp_path: Path, force: bool, resume: bool) -> None:
    prepare_output(tmp_path / "a" / "b", force=force, resume=resume)
    assert (tmp_path / "a" / "b").is_dir()
    prepare_output(tmp_path / "a" / "b", force=force, resume=resume)  # and an empty one is free


def test_what_is_there_is_kept_to_go_on_with(ours: Path) -> None:
    with pytest.raises(OutputExistsError, match="not empty") as error:
        prepare_output(ours, force=False, resume=False)
    assert "--resume" in (error.value.hint or "")
    prepare_output(ours, force=False, resume=True)
    prepare_output(ours, force=True, resume=True)
    assert (ours / "manifest.json").read_text() == MANIFEST


def test_only_what_a_run_wrote_is_replaced(ours: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "manifest.json").write_text('{"name": "somebody else\'s"}')
    with pytest.raises(OutputExistsError, match="no run of mismatchscope wrote"):
        prepare_output(theirs, force=True, resume=False)
    assert list(theirs.iterdir())
    prepare_output(ours, force=True, resume=False)
    assert not list(ours.iterdir())


def test_what_the_run_reads_is_not_replaced(ours: Path) -> None:
    with pytest.raises(OutputExistsError, match="which this run reads"):
        prepare_output(ours, force=True, resume=False, inputs=[None, ours / "manifest.json"])
    assert (ours / "manifest.json").exists()


@pytest.mark.parametrize(("force", "resume"), [(False, False), (True, False), (False, True)])
def test_a_file_is_never_replaced(tmp_path: Path, force: bool, resume: bool) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(OutputExistsError):
        prepare_output(file, force=force, resume=resume)
    assert file.read_text() == "mine"
