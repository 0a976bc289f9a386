"""Which files of what a person names are a log: found by content, one format, each file once."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mismatchscope.errors import TraceError, UsageError
from mismatchscope.logs.detect import find_logs
from mismatchscope.logs.reading import open_logs
from mismatchscope.logs.source import LogFormat, Part


def text_format(name: str) -> LogFormat:
    """Files that begin with the format's name."""
    return LogFormat(
        name,
        looks_for=f"files that begin with {name}",
        recognises=lambda path, head: head.startswith(name.encode()),
        parts=lambda path: [Part(path)],
        read=lambda part: iter(()),
        columns=(),
        unfinished=lambda path: (
            f"{path.name} has no end" if path.read_text(encoding="utf-8").endswith("…") else None
        ),
    )


FORMATS = [text_format("apple"), text_format("pear")]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_files_are_found_at_any_depth_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for step in (10, 9, 100):
        write(tmp_path / f"run/step_{step}/rank_0", f"apple {step}")
    write(tmp_path / "run/notes.txt", "nothing")
    found = find_logs([tmp_path], FORMATS)
    assert found.format.name == "apple"
    assert [path.parent.name for path in found.files] == ["step_9", "step_10", "step_100"]
    assert found.remarks == ("Files that were left out: 1 of another kind.",)


def test_hidden_and_temporary_files_are_left_out_and_counted(tmp_path: Path) -> None:
    for name in ("a", ".b", "c.tmp", "d.partial", ".git/e"):
        write(tmp_path / name, f"apple {name}")
    os.mkfifo(tmp_path / "pipe")
    found = find_logs([tmp_path], FORMATS)
    assert [path.name for path in found.files] == ["a"]
    assert found.remarks == ("Files that were left out: 1 hidden, 1 no regular file, 2 temporary.",)


def test_a_file_is_read_once_however_often_it_is_named_or_written(tmp_path: Path) -> None:
    first = write(tmp_path / "rank_0", "apple")
    write(tmp_path / "rank_1", "apple")
    write(tmp_path / "rank_2", "apples")
    (tmp_path / "link").symlink_to(first)
    found = find_logs([tmp_path, first, first], FORMATS)
    assert [path.name for path in found.files] in (["rank_0", "rank_2"], ["link", "rank_2"])
    assert len(found.remarks) == 1
    assert "rank_1 has the content of" in found.remarks[0]


def test_two_formats_are_an_error_that_names_a_file_of_each(tmp_path: Path) -> None:
    write(tmp_path / "one", "apple")
    write(tmp_path / "two", "pear")
    with pytest.raises(UsageError, match=r"one is apple.*two is pear") as caught:
        find_logs([tmp_path], FORMATS)
    assert "--format apple" in caught.value.hint
    assert [path.name for path in find_logs([tmp_path], FORMATS[1:], forced=True).files] == ["two"]


def test_a_directory_without_logs_says_what_was_looked_for(tmp_path: Path) -> None:
    write(tmp_path / "notes", "nothing")
    with pytest.raises(UsageError, match="files that begin with apple; pear: files that begin with pear") as caught:
        find_logs([tmp_path], FORMATS)
    assert "1 of another kind" in caught.value.message
    assert caught.value.exit_code == 2


def test_a_file_that_is_named_must_be_a_log_unless_the_format_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "notes", "nothing")
    with pytest.raises(UsageError, match="no log of a known format"):
        find_logs([path], FORMATS)
    assert find_logs([path], FORMATS[:1], forced=True).files == (path,)


def test_what_is_unfinished_is_left_out_of_a_directory_and_said(tmp_path: Path) -> None:
    half = write(tmp_path / "half", "apple …")
    with pytest.raises(UsageError, match="because half has no end") as caught:
        find_logs([tmp_path], FORMATS)
    assert caught.value.hint == "name the files themselves"
    assert find_logs([half], FORMATS).files == (half,)
    write(tmp_path / "whole", "apple.")
    assert find_logs([tmp_path], FORMATS).remarks == ("Left out, because half has no end.",)


@pytest.mark.parametrize("kind", ["missing", "pipe", "sparse"])
def test_what_is_no_regular_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "sparse":
        with open(path, "wb") as file:
            file.truncate(2**40)
    with pytest.raises(UsageError, match=re.escape(str(path))):
        find_logs([path], FORMATS)


def test_names_of_foreign_files_cannot_act(tmp_path: Path) -> None:
    write(tmp_path / "a", "apple")
    write(tmp_path / "b\x1b[31m", "apple")
    [remark] = find_logs([tmp_path], FORMATS).remarks
    assert "\x1b" not in remark


def test_broken_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.parquet"
    pq.write_table(pa.table({"x": [1]}), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(TraceError, match=re.escape(str(path))):
        open_logs([tmp_path])


@pytest.mark.slow
def test_ten_thousand_files_are_found_in_seconds(tmp_path: Path) -> None:
    for index in range(10_000):
        (tmp_path / f"rank_{index}").write_bytes(b"apple %d" % index)
    started = time.monotonic()
    assert len(find_logs([tmp_path], FORMATS).files) == 10_000
    assert time.monotonic() - started < 10
