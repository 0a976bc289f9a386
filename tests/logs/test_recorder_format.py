"""Parquet of our own form: the same rows whatever the row groups, and types that are nearly ours."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mismatchscope import parquet_files
from mismatchscope.errors import TraceError
from mismatchscope.logs import row_groups
from mismatchscope.logs.columns import column_type
from mismatchscope.logs.reading import Log, open_logs

RNG = np.random.default_rng(0)
LENGTHS = [3, 0, 5, 1, 7, 2]


def by_token(kind: pa.DataType) -> pa.Array:
    values = [(-RNG.exponential(size=length)).tolist() for length in LENGTHS]
    return pa.array(values, pa.list_(kind))


def table(**others: Any) -> pa.Table:
    columns = {
        "sequence_id": pa.array(range(len(LENGTHS)), pa.int64()),
        "worker": ["a", "b", None, "a", "b", "c"],
        "behavior_logprobs": by_token(pa.float32()),
        "reference_logprobs": by_token(pa.float32()),
    }
    return pa.table(columns | others)


def rows_of(log: Log) -> pa.Table:
    return pa.Table.from_batches([batch.rows for part in log.parts() for batch in log.read(part)])


def test_rows_come_through_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = table(somebody_elses=[1] * len(LENGTHS))
    pq.write_table(written, tmp_path / "a.parquet", row_group_size=2)
    monkeypatch.setattr(row_groups, "PART_BYTES", 1)
    monkeypatch.setattr(row_groups, "BATCH_VALUES", 4)
    log = pickle.loads(pickle.dumps(open_logs([tmp_path])))
    assert [(part.start, part.stop) for part in log.parts()] == [(0, 1), (1, 2), (2, 3)]
    read = rows_of(log)
    assert read.to_pydict() == written.drop_columns("somebody_elses").to_pydict()
    assert [origin.policy for origin in log.columns] == ["behavior", "reference", "target"]


def test_small_row_groups_share_a_part(tmp_path: Path) -> None:
    pq.write_table(table(), tmp_path / "a.parquet", row_group_size=1)
    log = open_logs([tmp_path])
    [part] = log.parts()
    assert (part.start, part.stop) == (0, len(LENGTHS))
    assert rows_of(log).num_rows == len(LENGTHS)


@pytest.mark.parametrize("kind", [pa.large_list(pa.float32()), pa.list_(pa.float16()), pa.list_(pa.float64())])
def test_types_that_hold_the_same_are_taken(tmp_path: Path, kind: pa.DataType) -> None:
    values = pa.array([[-0.5] * length for length in LENGTHS], pa.list_(pa.float32())).cast(kind)
    written = table(behavior_logprobs=values, worker=pa.array(["a"] * 6).dictionary_encode())
    pq.write_table(written, tmp_path / "a.parquet")
    read = rows_of(open_logs([tmp_path]))
    double = kind.value_type == pa.float64()
    assert read.schema.field("behavior_logprobs").type == column_type("behavior_logprobs", double=double)
    assert read.column("behavior_logprobs").to_pylist() == values.to_pylist()
    assert read.column("worker").type == pa.string()


@pytest.mark.parametrize("values", [["a"] * 6, [1.0] * 6, [{"x": 1}] * 6])
def test_a_column_of_another_kind_is_named(tmp_path: Path, values: list[Any]) -> None:
    pq.write_table(table(behavior_logprobs=values), tmp_path / "a.parquet")
    with pytest.raises(TraceError, match="behavior_logprobs"):
        rows_of(open_logs([tmp_path]))


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some kilobytes of equal values, which decode to many megabytes."""
    monkeypatch.setattr(parquet_files, "_free_memory", lambda: 2**20)
    offsets = np.arange(0, 4_000_001, 1_000_000, dtype=np.int32)
    zeros = pa.ListArray.from_arrays(offsets, pa.array(np.zeros(4_000_000, dtype=np.float32)))
    written = pa.table({"behavior_logprobs": zeros, "reference_logprobs": zeros})
    pq.write_table(written, tmp_path / "a.parquet", compression="zstd")
    with pytest.raises(TraceError, match="decode to"):
        open_logs([tmp_path]).parts()
