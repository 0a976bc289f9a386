"""JSON lines: any cut gives the same rows, and every line that is none is accounted for."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mismatchscope.input_files import UnusableFileError
from mismatchscope.logs import jsonl
from mismatchscope.logs.source import Part


def rows(parts: list[Part]) -> tuple[list[tuple[int, Any]], Counter[str], list[str]]:
    rejected: Counter[str] = Counter()
    remarks: list[str] = []
    return [row for part in parts for row in jsonl.rows_of(part, rejected, remarks)], rejected, remarks


def write(directory: Path, data: bytes) -> Path:
    path = directory / "log.jsonl"
    path.write_bytes(data)
    return path


LINES = st.one_of(
    st.dictionaries(
        st.text(max_size=3), st.one_of(st.integers(-(2**60), 2**60), st.text(max_size=20), st.none()), max_size=3
    ).map(lambda row: json.dumps(row).encode()),
    st.sampled_from([b"", b"  ", b"[1]", b"7", b"{", b"\xff", b'{"a": NaN}', b'{"b": "' + b"x" * 90 + b'"}']),
)


@settings(max_examples=40, deadline=None)
@given(lines=st.lists(LINES, max_size=12), size=st.integers(1, 200), ended=st.booleans())
def test_any_cut_gives_the_same_rows(lines: list[bytes], size: int, ended: bool) -> None:
    data = b"\n".join(lines) + (b"\n" if ended else b"")
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        path = write(Path(directory), data)
        whole = rows([Part(path)])
        patch.setattr(jsonl, "PART_BYTES", size)
        parts = jsonl.parts_of(path)
        assert rows(parts) == whole
        assert [part.stop for part in parts[:-1]] == [part.start for part in parts[1:]]
        assert all(data[part.start - 1 : part.start] in (b"", b"\n") for part in parts)
        for place, row in whole[0]:
            assert str(json.loads(data[place:].split(b"\n")[0])) == str(row)
        told = len(whole[0]) + whole[1].total() + len(whole[2])
        assert told == sum(bool(line.strip()) for line in lines)


def test_a_last_line_without_an_end_is_said_and_no_fault(tmp_path: Path) -> None:
    path = write(tmp_path, b'{"a": 1}\n{"a": 2}\n{"a": [1, 2')
    found, rejected, [remark] = rows(jsonl.parts_of(path))
    assert [row for _, row in found] == [{"a": 1}, {"a": 2}]
    assert not rejected
    assert "has no end" in remark


def test_a_last_line_may_lack_its_newline(tmp_path: Path) -> None:
    assert rows(jsonl.parts_of(write(tmp_path, b'{"a": 1}\n{"a": 2}'))) == (
        [(0, {"a": 1}), (9, {"a": 2})],
        Counter(),
        [],
    )


def test_a_torn_line_within_is_rejected(tmp_path: Path) -> None:
    path = write(tmp_path, b'\xef\xbb\xbf{"a": 1}\n{"a": [1, \n\n3\n{"a": 2}\n')
    found, rejected, remarks = rows(jsonl.parts_of(path))
    assert [row for _, row in found] == [{"a": 1}, {"a": 2}]
    assert rejected == Counter({"no JSON": 1, "no JSON object": 1})
    assert not remarks


HOSTILE = {
    "lists": b"[" * 100_000,
    "objects": b'{"a":' * 100_000,
    "with a NaN": b'{"a": NaN, "b": ' + b"[" * 5000,
    "digits": b"1" * 5000,
}


@pytest.mark.parametrize("line", HOSTILE.values(), ids=HOSTILE.keys())
def test_lines_that_break_parsers_are_no_json(tmp_path: Path, line: bytes) -> None:
    found, rejected, _ = rows(jsonl.parts_of(write(tmp_path, line + b'\n{"a": 1}\n')))
    assert [row for _, row in found] == [{"a": 1}]
    assert rejected.total() == 1


def test_a_part_stays_what_it_is_while_its_file_grows(tmp_path: Path) -> None:
    path = write(tmp_path, b'{"a": 1}\n{"a":')
    parts = jsonl.parts_of(path)
    assert jsonl.whole_lines(path) == 9
    before = rows(parts)
    path.write_bytes(path.read_bytes() + b' 2}\n{"a": 3}\n')
    assert rows(parts) == before
    assert jsonl.whole_lines(path) == 27
    assert rows([Part(path, 9, 27)])[0] == [(9, {"a": 2}), (18, {"a": 3})]


def test_a_line_beyond_the_limit_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "PART_BYTES", 10)
    monkeypatch.setattr(jsonl, "LINE_BYTES", 100)
    path = write(tmp_path, b'{"a": 1}\n{"a": "' + b"x" * 200 + b'"}\n')
    with pytest.raises(ValueError, match="has a line of more than"):
        rows(jsonl.parts_of(path))


def test_a_range_of_many_lines_may_be_longer_than_any_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "PART_BYTES", 10)
    monkeypatch.setattr(jsonl, "LINE_BYTES", 20)
    path = write(tmp_path, b'{"a": 1}\n' * 30)
    assert rows([Part(path)])[0] == [(9 * line, {"a": 1}) for line in range(30)]


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path: Path) -> None:
    path = write(tmp_path, b'\xef\xbb\xbf{"a": 1}\n{"a": 2}\n')
    assert rows([Part(path)]) == ([(3, {"a": 1}), (12, {"a": 2})], Counter(), [])


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    os.mkfifo(path)
    with pytest.raises(UnusableFileError):
        jsonl.parts_of(path)


def test_keys_are_seen_without_parsing(tmp_path: Path) -> None:
    text = json.dumps({"content": 'a "generation_logprobs": quoted', "first": [1] * 5000, "second": {}})
    path = write(tmp_path, f"{text}\n".encode())
    assert jsonl.keys_of(path, path.read_bytes()[:100]) == {"content", "first", "second"}
    assert jsonl.keys_of(write(tmp_path, b'["first"]'), b'["first"]') == frozenset()
