"""The directory that a run writes to: what is free, what may be replaced, what never is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mismatchscope.collection.output import output_directory
from mismatchscope.errors import OutputExistsError, UsageError

MANIFEST = '{"schema_version": 1, "engine": "vllm", "policy": "raw"}'
RUN = '{"behavior": "synthetic", "reference": "synthetic"}'


def put(directory: Path, *names: str) -> None:
    """Files of these names; `name/` is a directory."""
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir()
        else:
            path.write_text({"manifest.json": MANIFEST, "run.json": RUN}.get(path.name, name))


def tree(directory: Path) -> list[str]:
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*"))


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """A directory that a run of ours wrote."""
    directory = tmp_path / "run"
    put(directory, "manifest.json", "tokens.parquet")
    return directory


@pytest.mark.parametrize(("force", "resume"), [(False, False), (True, False), (False, True)])
def test_what_is_not_there_is_made_and_an_empty_one_is_free(tmp_path: Path, force: bool, resume: bool) -> None:
    output = tmp_path / "a" / "b"
    with output_directory(output, force=force, resume=resume):
        assert output.is_dir()
    assert not output.exists()  # nothing was written
    output.mkdir()
    with output_directory(output, force=force, resume=resume):
        (output / "run.json").write_text(RUN)
    assert tree(output) == ["run.json"]


def test_what_is_there_is_kept_to_go_on_with(ours: Path) -> None:
    with pytest.raises(OutputExistsError, match="not empty") as error, output_directory(ours):
        pass
    assert "--resume" in (error.value.hint or "")
    for force in (False, True):
        with output_directory(ours, force=force, resume=True):
            assert (ours / "manifest.json").read_text() == MANIFEST


def test_everything_that_a_run_wrote_is_replaced(tmp_path: Path) -> None:
    trace = (
        "manifest.json",
        "sequences.parquet",
        "tokens.parquet",
        "distributions.safetensors",
        ".tokens.parquet.tmp",
    )
    sides = ("behavior", "behavior-raw", "behavior-repeat", "reference", "reference-repeat", "baseline")
    put(tmp_path, *(f"{side}/{name}" for side in sides for name in trace))
    put(tmp_path, "behavior/parts/000000007.safetensors", "behavior/parts/.000000008.safetensors.123.tmp")
    put(tmp_path, "logs/behavior.log", "logs/baseline.log", "run.json", ".run.json.77.tmp", "api-prompts.jsonl")
    put(tmp_path, "report.json", "report.prompts.json", "report.md", "report.html", "junit.xml", "report.csv")
    inside = "runs/0123456789abcdef"
    put(tmp_path, f"{inside}/internals-7.safetensors", f"{inside}/.internals-8.safetensors.5.tmp")
    put(tmp_path, ".mismatchscope.lock")  # of a killed run
    with output_directory(tmp_path, force=True):
        assert tree(tmp_path) == [".mismatchscope.lock"]
    assert tree(tmp_path) == []


@pytest.mark.parametrize(
    ("theirs", "named"),
    [
        ("src/main.py", "src/"),
        ("notes.txt", "notes.txt"),
        ("run.toml", "run.toml"),
        ("prompts.jsonl", "prompts.jsonl"),
        ("behavior/notes.txt", "behavior/notes.txt"),
        ("behavior/parts/mine.safetensors", "behavior/parts/mine.safetensors"),
        ("behavior/parts/deep/1.safetensors", "behavior/parts/deep/"),
        ("behavior/behavior/tokens.parquet", "behavior/behavior/"),
        ("parts/mine", "parts/mine"),
        ("logs/other.log", "logs/other.log"),
        ("logs/old/behavior.log", "logs/old/"),
        ("report.md/inner", "report.md/"),
        ("tokens.parquet.bak", "tokens.parquet.bak"),
        (".tokens.parquet", ".tokens.parquet"),
        (".git/config", ".git/"),
        (".mine.tmp", ".mine.tmp"),
        ("Report.json", "Report.json"),
        ("empty/", "empty/"),
    ],
)
def test_anything_else_stops_it_and_is_named(ours: Path, theirs: str, named: str) -> None:
    put(ours, "behavior/tokens.parquet", theirs)
    before = tree(ours)
    stops = pytest.raises(OutputExistsError, match="no run of mismatchscope wrote")
    with stops as error, output_directory(ours, force=True):
        pass
    assert f"{ours} holds {named}, which" in error.value.message
    assert tree(ours) == before


@pytest.mark.parametrize("name", ["report.md", "behavior", "logs", "parts", "behavior/parts"])
def test_a_link_is_never_a_runs_and_what_it_leads_to_stays(ours: Path, tmp_path: Path, name: str) -> None:
    put(tmp_path, "mine/tokens.parquet", "mine/1.safetensors")
    (ours / name).parent.mkdir(exist_ok=True)
    (ours / name).symlink_to(tmp_path / "mine")
    with pytest.raises(OutputExistsError, match=name), output_directory(ours, force=True):
        pass
    assert tree(tmp_path / "mine") == ["1.safetensors", "tokens.parquet"]
    assert (ours / "manifest.json").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("manifest.json", '{"name": "an extension of a browser"}'),
        ("report.json", '{"schema_version": 3}'),
        ("report.md", "my own"),
        ("run.json", "[" * 100_000),
        ("run.json", "not JSON"),
    ],
)
@pytest.mark.parametrize("resume", [False, True])
def test_names_alone_make_no_run(tmp_path: Path, name: str, content: str, resume: bool) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(OutputExistsError), output_directory(tmp_path, force=not resume, resume=resume):
        pass
    assert (tmp_path / name).read_text() == content


def test_a_pipe_in_the_place_of_a_manifest_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "manifest.json")
    with pytest.raises(OutputExistsError, match=r"manifest\.json"), output_directory(tmp_path, force=True):
        pass
    assert tree(tmp_path) == ["manifest.json"]


def test_a_run_that_lost_its_own_file_is_known_by_its_traces(tmp_path: Path) -> None:
    put(tmp_path, "behavior/manifest.json", "report.md")
    with output_directory(tmp_path, resume=True):
        pass
    with output_directory(tmp_path, force=True):
        pass
    assert tree(tmp_path) == []


def test_what_a_killed_run_was_just_writing_is_cleared_away(tmp_path: Path) -> None:
    put(tmp_path, ".run.json.77.tmp", ".theirs.77.tmp")
    with pytest.raises(OutputExistsError, match="no run to go on with"), output_directory(tmp_path, resume=True):
        pass
    (tmp_path / ".theirs.77.tmp").unlink()
    with output_directory(tmp_path, resume=True):
        assert tree(tmp_path) == [".mismatchscope.lock"]


def test_what_the_run_reads_is_not_replaced(ours: Path) -> None:
    stops = pytest.raises(OutputExistsError, match="which this run reads")
    with stops, output_directory(ours, force=True, inputs=[None, ours / "manifest.json"]):
        pass
    assert tree(ours) == ["manifest.json", "tokens.parquet"]


def test_nothing_is_removed_of_one_directory_where_something_stops_it_in_another(ours: Path) -> None:
    raw = ours.with_name("run-raw")
    put(raw, "manifest.json", "mine.txt")
    with pytest.raises(OutputExistsError, match=r"mine\.txt"), output_directory(ours, force=True, beside=[raw]):
        pass
    assert tree(ours) == ["manifest.json", "tokens.parquet"]
    (raw / "mine.txt").unlink()
    with output_directory(ours, force=True, beside=[raw]):
        assert tree(raw) == [".mismatchscope.lock"]


def a_file(path: Path) -> None:
    path.write_text("mine")


def dangling_link(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


@pytest.mark.parametrize("occupy", [a_file, dangling_link, os.mkfifo])
@pytest.mark.parametrize(("force", "resume"), [(False, False), (True, False), (False, True)])
def test_what_is_no_directory_is_never_replaced(
    tmp_path: Path, occupy: Callable[[Path], None], force: bool, resume: bool
) -> None:
    path = tmp_path / "output"
    occupy(path)
    before = path.lstat()
    with pytest.raises(OutputExistsError), output_directory(path, force=force, resume=resume):
        pass
    assert path.lstat() == before


def test_a_place_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    stops = pytest.raises(UsageError, match="cannot be used: Not a directory")
    with stops, output_directory(tmp_path / "file" / "run"):
        pass
