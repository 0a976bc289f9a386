"""What is opened when somebody names a file: regular files of bounded size, and JSON that is no trap."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mismatchscope.input_files import (
    DOCUMENT_BYTES,
    MAX_DEPTH,
    MAX_DIGITS,
    UnusableFileError,
    check_regular,
    json_bytes,
    open_regular,
    parse_json,
    read_bytes,
    read_json,
    read_text,
    reason,
)


def fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


def listening(path: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    return path


@pytest.fixture
def other_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """What is no regular file, by a word of the sentence that says so."""
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    link = tmp_path / "link"
    link.symlink_to(fifo(tmp_path / "target"))
    return {
        "pipe": fifo(tmp_path / "fifo.json"),
        "device": Path("/dev/zero"),
        "socket": listening(Path("socket.json")),
        "directory": tmp_path,
        "a pipe": link,
    }


@pytest.fixture
def pipe() -> Iterator[Path]:
    """As a shell's `<(command)` names it."""
    reader, writer = os.pipe()
    yield Path(f"/dev/fd/{reader}")
    os.close(reader)
    os.close(writer)


def test_what_is_no_regular_file_is_not_opened(other_kinds: dict[str, Path]) -> None:
    for word, path in other_kinds.items():
        for read in (check_regular, open_regular, read_bytes, read_text, read_json):
            with pytest.raises(UnusableFileError, match=word):
                read(path)


def test_a_pipe_of_the_shell_is_named_as_one(pipe: Path) -> None:
    with pytest.raises(UnusableFileError) as caught:
        read_bytes(pipe)
    assert reason(caught.value) == "it is a pipe, which can be read once and may never end, not a regular file"


def test_a_writer_that_waits_at_a_pipe_is_left_alone(tmp_path: Path) -> None:
    path = fifo(tmp_path / "fifo")
    with pytest.raises(UnusableFileError):
        read_bytes(path)
    with pytest.raises(OSError, match="No such device or address"):  # ENXIO: nobody has it open
        os.open(path, os.O_WRONLY | os.O_NONBLOCK)


def test_a_sparse_giant_is_refused_by_its_size(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.touch()
    os.truncate(path, 2**40)
    with pytest.raises(UnusableFileError, match="more than 64 MiB"):
        read_json(path)
    with pytest.raises(UnusableFileError, match="sparse"):
        check_regular(path)


def test_the_limit_itself_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("12345")
    assert read_bytes(path, limit=5) == b"12345"
    with pytest.raises(UnusableFileError):
        read_bytes(path, limit=4)


def test_a_file_that_says_it_is_empty_is_read_up_to_the_limit() -> None:
    assert b"MemTotal" in read_bytes(Path("/proc/meminfo"))
    with pytest.raises(UnusableFileError):
        read_bytes(Path("/proc/meminfo"), limit=10)


def test_a_link_to_a_regular_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text('{"a": 1}')
    (tmp_path / "link.json").symlink_to("real.json")
    assert read_json(tmp_path / "link.json") == {"a": 1}


def test_a_file_that_is_not_there_is_the_systems_own_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        read_json(tmp_path / "none.json")
    assert reason(caught.value) == "No such file or directory"


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 5_000, 200_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_deep_nesting_is_refused(depth: int, opening: str, closing: str) -> None:
    with pytest.raises(ValueError, match="nested more than"):
        parse_json(opening * depth + ("0" if opening != "[" else "") + closing * depth)


def test_what_files_have_is_read(tmp_path: Path) -> None:
    deep = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert parse_json(deep) == json.loads(deep)
    greatest = {"model_max_length": int(1e30), "text": "7" * 10_000, "seed": -(2**63)}
    data = json.dumps(greatest)
    assert parse_json(data) == parse_json(data.encode()) == greatest
    (tmp_path / "it.json").write_text(data)
    assert json_bytes(tmp_path / "it.json") == data.encode()


@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize("digits", [MAX_DIGITS + 1, 5_000])
def test_integers_without_end_are_refused(tmp_path: Path, digits: int, sign: str) -> None:
    data = b'{"a": [%s%s]}' % (sign.encode(), b"1" * digits)
    (tmp_path / "it.json").write_bytes(data)
    with pytest.raises(ValueError, match="integer of more than 100 digits"):
        parse_json(data)
    with pytest.raises(ValueError, match="integer of more than 100 digits"):
        json_bytes(tmp_path / "it.json")


def test_the_largest_document_has_room() -> None:
    assert DOCUMENT_BYTES >= 64 * 2**20
