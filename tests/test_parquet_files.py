"""Parquet files of a few kilobytes that stand for gigabytes are refused; what people have is read."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mismatchscope import parquet_files
from mismatchscope.input_files import UnusableFileError
from mismatchscope.parquet_files import ExpandingFileError, check_expansion, open_parquet
from mismatchscope.parquet_pages import DATA, DICTIONARY, BrokenPageError, pages

pytestmark = pytest.mark.slow

MIB = 2**20
LAYOUTS: list[dict[str, Any]] = [
    {},
    {"compression": "zstd", "write_page_checksum": True},
    {"data_page_version": "2.0"},
    {"use_dictionary": False},
    {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}},
]


@pytest.fixture(autouse=True)
def _little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """8 MiB are always read, and 32 MiB of a column with lists or texts."""
    monkeypatch.setattr(parquet_files, "_free_memory", lambda: 64 * MIB)


def write(path: Path, **layout: Any) -> Path:
    rows = 50_000
    table = pa.table(
        {
            "id": np.arange(rows),
            "text": [f"text {row % 777}" for row in range(rows)],
            "ids": [[1, 2, 3]] * rows,
            "nothing": pa.array([None] * rows, pa.float64()),
            "flag": [True] * rows,
        }
    )
    pq.write_table(table, path, row_group_size=20_000, **layout)
    return path


def shared_text(path: Path, characters: int, rows: int) -> Path:
    """One text in a dictionary, and so many rows of it."""
    text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array(["a" * characters]))
    table = pa.table({"prompt": text})
    pq.write_table(table, path, compression="zstd", dictionary_pagesize_limit=2**30, store_schema=False)
    return path


def one_list(path: Path, entries: int) -> Path:
    offsets = pa.array([0, entries], pa.int32())
    lists = pa.ListArray.from_arrays(offsets, pa.array(np.zeros(entries, np.int32)))
    pq.write_table(pa.table({"prompt_token_ids": lists}), path, compression="zstd")
    return path


def prefixed_text(path: Path, characters: int, rows: int) -> Path:
    table = pa.table({"prompt": ["a" * characters] * rows})
    encoding = {"prompt": "DELTA_BYTE_ARRAY"}
    pq.write_table(table, path, compression="zstd", use_dictionary=False, column_encoding=encoding)
    return path


def check(path: Path) -> None:
    check_expansion(path, open_parquet(path))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_pages_are_those_of_the_file(tmp_path: Path, layout: dict[str, Any]) -> None:
    path = write(tmp_path / "it.parquet", **layout)
    file = pq.ParquetFile(path)
    with open(path, "rb") as opened:
        for group in range(file.num_row_groups):
            for column in range(file.metadata.num_columns):
                chunk = file.metadata.row_group(group).column(column)
                found = list(pages(opened, chunk))
                assert sum(page.values for page in found if page.kind != DICTIONARY) == chunk.num_values
                assert (found[0].kind == DICTIONARY) == chunk.has_dictionary_page
                assert sum(page.size for page in found) <= chunk.total_uncompressed_size
    check(path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ordinary_columns_may_be_of_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: dict[str, Any]
) -> None:
    monkeypatch.setattr(parquet_files, "_free_memory", lambda: 0)
    draws = np.random.default_rng(0)
    table = pa.table(
        {
            "logprob": draws.normal(size=20_000),
            "text": [f"{number:x}" * 5 for number in draws.integers(2**62, size=20_000)],
            "ids": [list(row) for row in draws.integers(30_000, size=(20_000, 8))],
        }
    )
    pq.write_table(table, tmp_path / "it.parquet", **layout)
    check(tmp_path / "it.parquet")


def test_texts_that_repeat_are_added_up_and_not_estimated(tmp_path: Path) -> None:
    """One long text in a dictionary of short ones is no bomb."""
    texts = pa.array(["short"] * 20_000 + ["a" * 100_000])
    pq.write_table(pa.table({"prompt": texts}), tmp_path / "it.parquet", compression="zstd")
    check(tmp_path / "it.parquet")


@pytest.mark.parametrize(
    "write_bomb",
    [
        lambda path: shared_text(path, 1_000_000, 10_000),
        lambda path: one_list(path, 10_000_000),
        lambda path: prefixed_text(path, 1_000_000, 60),
        lambda path: prefixed_text(path, 40_000_000, 1),
    ],
    ids=["dictionary", "list", "prefixes", "one text"],
)
def test_what_expands_is_refused(tmp_path: Path, write_bomb: Any) -> None:
    path = write_bomb(tmp_path / "it.parquet")
    assert path.stat().st_size < 100_000
    with pytest.raises(ExpandingFileError, match="bytes decode to"):
        check(path)


def test_only_columns_that_are_read_count(tmp_path: Path) -> None:
    path = shared_text(tmp_path / "it.parquet", 1_000_000, 10_000)
    check_expansion(path, open_parquet(path), ["another"])
    with pytest.raises(ExpandingFileError):
        check_expansion(path, open_parquet(path), ["prompt"])


def test_a_footer_that_lies_is_refused(tmp_path: Path) -> None:
    """The first page says that it has two more values than the column is said to have."""
    path = tmp_path / "it.parquet"
    pq.write_table(pa.table({"id": np.arange(40)}), path, use_dictionary=False, compression="none")
    data = bytearray(path.read_bytes())
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(0)
    with open(path, "rb") as opened:
        assert [page.kind for page in pages(opened, chunk)] == [DATA]
    at = data.index(b"\x15\x50", chunk.data_page_offset)  # 40 values, in zigzag order
    data[at + 1] += 4
    path.write_bytes(data)
    with pytest.raises(BrokenPageError, match="have 42 values, its metadata 40"):
        check(path)


def test_every_byte_of_a_page_header_may_be_wrong(tmp_path: Path) -> None:
    path = write(tmp_path / "it.parquet")
    data, file = path.read_bytes(), pq.ParquetFile(path)
    chunks = [file.metadata.row_group(0).column(column) for column in range(file.metadata.num_columns)]
    draws = np.random.default_rng(0)
    for _ in range(300):
        chunk = chunks[draws.integers(len(chunks))]
        at = (chunk.dictionary_page_offset or chunk.data_page_offset) + int(draws.integers(24))
        (tmp_path / "altered").write_bytes(data[:at] + draws.bytes(1) + data[at + 1 :])
        with open(tmp_path / "altered", "rb") as opened, contextlib.suppress(BrokenPageError):
            assert sum(1 for _ in pages(opened, chunk)) < 100


def test_what_is_no_regular_file_is_not_opened() -> None:
    with pytest.raises(UnusableFileError, match="device"):
        open_parquet(Path("/dev/zero"))


def test_free_memory_is_below_a_limit_of_the_process() -> None:
    program = """
import resource
from mismatchscope.parquet_files import _free_memory
assert _free_memory() > 2**26
resource.setrlimit(resource.RLIMIT_AS, (2**30, resource.getrlimit(resource.RLIMIT_AS)[1]))
assert 0 <= _free_memory() < 2**30
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
