"""run.json: whether the traces beside it are one audit's."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import manifest

from mismatchscope.collection.run_json import check_run_json, write_run_json
from mismatchscope.config import AuditSettings
from mismatchscope.errors import OutputExistsError
from mismatchscope.traces import Manifest, create

SETTINGS = AuditSettings()


@pytest.fixture
def asked(tmp_path: Path) -> dict[Path, Manifest]:
    return {tmp_path / "behavior": manifest(), tmp_path / "reference": manifest(role="reference", path="prefill")}


@pytest.fixture
def directory(tmp_path: Path, asked: dict[Path, Manifest]) -> Path:
    """An audit that was begun: the trace of one side is there."""
    write_run_json(tmp_path, SETTINGS, asked)
    create(tmp_path / "behavior", asked[tmp_path / "behavior"])
    return tmp_path


def test_an_audit_goes_on_beside_its_own_run_file(directory: Path, asked: dict[Path, Manifest]) -> None:
    assert check_run_json(directory, asked) is None
    scored = {path: made.model_copy(update={"parent": "a" * 64}) for path, made in asked.items()}
    assert check_run_json(directory, scored) is None, "the trace that is scored is complete by now"
    assert check_run_json(directory, asked | {directory / "baseline": manifest(engine="vllm")}) is None


def test_without_it_nothing_is_guessed(directory: Path, asked: dict[Path, Manifest]) -> None:
    (directory / "run.json").unlink()
    with pytest.raises(OutputExistsError, match=r"has the traces behavior but no run\.json") as raised:
        check_run_json(directory, asked)
    assert raised.value.exit_code == 2 and "put run.json back" in raised.value.hint


def test_a_directory_without_traces_needs_none(tmp_path: Path, asked: dict[Path, Manifest]) -> None:
    (tmp_path / "behavior").mkdir()
    (tmp_path / "behavior" / ".manifest.json.17.tmp").write_bytes(b"{")
    assert check_run_json(tmp_path, asked) is None


def test_that_of_another_audit_is_refused(directory: Path, asked: dict[Path, Manifest]) -> None:
    other = {path: made.model_copy(update={"prompts_sha256": "b" * 64}) for path, made in asked.items()}
    write_run_json(directory, SETTINGS, other)
    with pytest.raises(OutputExistsError, match=r"is of another audit .* asked for another behavior"):
        check_run_json(directory, asked)
    write_run_json(directory, SETTINGS, {directory / "baseline": manifest()})
    with pytest.raises(OutputExistsError, match="is of another audit"):
        check_run_json(directory, asked)


def edited(file: Path) -> None:
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"model": "other"}))


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(b""),
        lambda file: os.truncate(file, 90),
        lambda file: file.write_bytes(b"\xff\0"),
        lambda file: file.write_text("[]"),
        lambda file: file.write_text("{}"),
        lambda file: file.write_text("[" * 100_000),
        edited,
    ],
    ids=["empty", "truncated", "noise", "a list", "no traces", "deep", "edited"],
)
def test_a_damaged_one_is_named_and_written_again(
    directory: Path, asked: dict[Path, Manifest], damage: Callable[[Path], object]
) -> None:
    damage(directory / "run.json")
    why = check_run_json(directory, asked)
    assert why is not None and why.startswith(f"{directory / 'run.json'} ")
    write_run_json(directory, SETTINGS, asked)
    assert check_run_json(directory, asked) is None


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_in_its_place_is_refused(
    directory: Path, asked: dict[Path, Manifest], make: Callable[[Path], None]
) -> None:
    (directory / "run.json").unlink()
    make(directory / "run.json")
    with pytest.raises(OutputExistsError, match=r"run\.json cannot be read: it is a (directory|pipe)"):
        check_run_json(directory, asked)
