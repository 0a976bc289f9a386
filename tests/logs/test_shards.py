"""Shards are whole or absent, of one process each, and say what they are."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mismatchscope.logs import shards

BATCH = pa.RecordBatch.from_pydict({"sequence_id": [0, 1], "behavior_logprobs": [[-1.0, -2.0], []]})


def test_every_file_says_what_it_is(tmp_path: Path) -> None:
    writer = shards.ShardWriter(tmp_path / "a" / "b", "trl")
    paths = [writer.write([BATCH, BATCH], 3), writer.write([BATCH], 3)]
    assert [path.name[-23:] for path in paths] == ["rank00003-000000.parquet"[1:], "rank00003-000001.parquet"[1:]]
    metadata = pq.read_schema(paths[0]).metadata
    assert metadata[shards.MARK] == shards.FORM and metadata[shards.TRAINER] == b"trl"
    assert pq.read_table(paths[0]).to_pylist() == 2 * BATCH.to_pylist()


def test_writers_of_one_rank_never_share_a_name(tmp_path: Path) -> None:
    names = {shards.ShardWriter(tmp_path, None).write([BATCH]).name for _ in range(20)}
    assert len(names) == 20


def test_a_file_that_could_not_be_written_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = shards.ShardWriter(tmp_path, None)

    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="No space"):
            writer.write([BATCH])
    assert not list(tmp_path.iterdir())
    assert pq.read_table(writer.write([BATCH])).num_rows == 2


def test_leftovers_of_killed_writers_go_once_they_are_old(tmp_path: Path) -> None:
    old, new, other = (tmp_path / name for name in (".a.parquet.1.tmp", ".b.parquet.2.tmp", ".c.tmp"))
    for path in (old, new, other):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    os.utime(other, (0, 0))
    shards.ShardWriter(tmp_path, None)
    assert {path.name for path in tmp_path.iterdir()} == {new.name, other.name}
