"""What an unfinished run left behind: what goes on from it, what is made again, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import manifest, record, records
from trace_contents import LENGTHS, files

from mismatchscope.errors import TraceError
from mismatchscope.records import finished_parts, write_part
from mismatchscope.traces import Trace, create, finish, write_records
from mismatchscope.traces.unfinished import remove_unusable, usable_manifest

IDS = range(len(LENGTHS))


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A run of which every sequence is finished and none is packed."""
    path = create(tmp_path / "trace", manifest())
    for each in records(LENGTHS):
        write_part(path / "parts", each, run="r")
    return path


def third(path: Path) -> Path:
    return path / "parts" / "000000003.safetensors"


def flip(at: int) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        content = bytearray(third(path).read_bytes())
        content[at] ^= 1
        third(path).write_bytes(content)

    return change


def as_pipe(path: Path) -> None:
    third(path).unlink()
    os.mkfifo(third(path))


def as_link(path: Path) -> None:
    third(path).unlink()
    third(path).symlink_to("nowhere")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: third(path).write_bytes(b""),
    "truncated": lambda path: os.truncate(third(path), third(path).stat().st_size - 9),
    "header alone": lambda path: os.truncate(third(path), 100),
    "noise": lambda path: third(path).write_bytes(os.urandom(3000)),
    "zeros": lambda path: third(path).write_bytes(bytes(third(path).stat().st_size)),
    "a bit of the last array": flip(-3),
    "a bit in the middle": flip(1500),
    "a sequence of another id": lambda path: third(path).write_bytes(
        (path / "parts" / "000000001.safetensors").read_bytes()
    ),
    "of another run": lambda path: write_part(path / "parts", record(3, LENGTHS[3]), run="other"),
    "a pipe": as_pipe,
    "a link to nothing": as_link,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_part_that_cannot_be_used_is_named_and_removed(begun: Path, damage: str) -> None:
    others = files(begun)
    others.pop("parts/000000003.safetensors")
    DAMAGES[damage](begun)
    [why] = remove_unusable(begun, "r", IDS)
    assert why.startswith(f"{third(begun)} ") and not why.endswith(".")
    assert not third(begun).exists() and not third(begun).is_symlink()
    assert files(begun) == others, "the rest is as it was"
    write_part(begun / "parts", record(3, LENGTHS[3]), run="r")
    assert finish(begun).counts.sequences == len(LENGTHS)


def test_whole_parts_stay_byte_for_byte(begun: Path) -> None:
    before = files(begun)
    assert remove_unusable(begun, "r", IDS) == []
    assert files(begun) == before


@pytest.mark.slow
def test_every_bit_of_a_part_counts(tmp_path: Path) -> None:
    """A mutation anywhere in the file is seen, or reads as the very same content."""
    path = create(tmp_path / "trace", manifest())
    part = write_part(path / "parts", record(0, 2, level="sampled"), run="r")
    whole, unseen = part.read_bytes(), []
    for at in range(len(whole)):
        part.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        if not remove_unusable(path, "r", [0]):
            unseen.append(at)
    assert unseen == []


def test_a_sequence_that_this_run_does_not_have_is_removed(begun: Path) -> None:
    write_part(begun / "parts", record(77, 3), run="r")
    [why] = remove_unusable(begun, "r", IDS)
    assert "000000077.safetensors is of a sequence that this run does not have" in why
    assert finish(begun).counts.sequences == len(LENGTHS)


def test_files_of_other_names_are_nobodys_parts_and_stay(begun: Path) -> None:
    foreign = begun / "parts" / "model.safetensors"
    foreign.write_bytes(b"weights")
    assert [*finished_parts(begun / "parts")] == [*IDS]
    assert remove_unusable(begun, "r", IDS) == []
    assert finish(begun).complete
    assert foreign.read_bytes() == b"weights"
    assert files(begun).keys() == {
        *("manifest.json", "sequences.parquet", "tokens.parquet", "distributions.safetensors"),
        "parts/model.safetensors",
    }


def test_a_directory_in_the_place_of_a_part_is_left_to_its_owner(begun: Path) -> None:
    third(begun).unlink()
    third(begun).mkdir()
    with pytest.raises(TraceError, match=r"000000003\.safetensors is a directory in the place of a file"):
        remove_unusable(begun, "r", IDS)


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 700, b'{"schema_version": 1, "engine"', b"{}", b"[]", b"\xff\xfe"]
)
def test_a_damaged_manifest_leaves_nothing_to_go_on_from(begun: Path, content: bytes) -> None:
    (begun / "manifest.json").write_bytes(content)
    (begun / "tokens.parquet").write_bytes(b"packed when it was killed")
    assert usable_manifest(begun) is None
    [why] = remove_unusable(begun, "r", IDS)
    assert f"{begun / 'manifest.json'} cannot be read" in why
    assert [*finished_parts(begun / "parts")] == [] and not (begun / "tokens.parquet").exists()
    create(begun, manifest())
    for each in records(LENGTHS):
        write_part(begun / "parts", each, run="r")
    finish(begun)
    assert Trace.open(begun).manifest.counts.sequences == len(LENGTHS)


def test_a_manifest_of_another_schema_is_not_damaged(begun: Path) -> None:
    before = {**files(begun), "manifest.json": b'{"schema_version": 7}'}
    (begun / "manifest.json").write_bytes(before["manifest.json"])
    with pytest.raises(TraceError, match="schema version is 7"):
        remove_unusable(begun, "r", IDS)
    assert files(begun) == before


@pytest.mark.parametrize("content", [b"", b'{"schema_version": 1'])
def test_a_complete_trace_whose_manifest_is_damaged_is_never_made_again(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "trace"
    write_records(path, manifest(), records(LENGTHS))
    (path / "manifest.json").write_bytes(content)
    before = files(path)
    for call in (lambda: remove_unusable(path, "r", IDS), lambda: create(path, manifest())):
        with pytest.raises(TraceError, match=r"manifest\.json cannot be used") as raised:
            call()
        assert f"remove {path} yourself" in raised.value.hint
    assert files(path) == before


def test_the_raw_view_of_an_unfinished_run_is_unfinished_too(tmp_path: Path) -> None:
    path = tmp_path / "trace-raw"
    write_records(path, manifest(policy="raw"), records(LENGTHS))
    (path / "manifest.json").write_bytes(b"")
    [why] = remove_unusable(path, "r", IDS, unfinished=True)
    assert "trace-raw/manifest.json cannot be read" in why
    assert usable_manifest(path) is None and files(path).keys() == {"manifest.json"}
