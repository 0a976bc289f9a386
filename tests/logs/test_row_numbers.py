"""Rows without ids get some that no other row of the file has; those that have ids keep them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from log_rows import log_batch

from mismatchscope.logs.reading import open_logs
from mismatchscope.logs.row_numbers import numbered
from mismatchscope.logs.source import LogBatch, Part


def without_ids(rows: int) -> pa.RecordBatch:
    batch = log_batch(behavior_logprobs=[[-1.0]] * rows, reference_logprobs=[[-1.5]] * rows).rows
    return batch.select([name for name in batch.schema.names if name != "sequence_id"])


def ids(batches: list[LogBatch]) -> list[int]:
    return [number for batch in batches for number in batch.rows.column("sequence_id").to_pylist()]


def test_rows_of_several_batches_and_parts_have_ids_of_their_own() -> None:
    path = Path("log.parquet")
    found = []
    for start in (0, 3):
        part = Part(path, start)
        found += ids(list(numbered(iter([LogBatch(without_ids(4), part), LogBatch(without_ids(2), part)]), part)))
    assert len(set(found)) == 12


def test_a_file_of_many_row_groups_has_no_id_twice(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_batches([without_ids(10)]), tmp_path / "run.parquet", row_group_size=3)
    log = open_logs([tmp_path / "run.parquet"])
    found = [number for part in log.parts() for number in ids(list(log.read(part)))]
    assert len(found) == len(set(found)) == 10


def test_ids_that_are_there_stay() -> None:
    part = Part(Path("log.parquet"))
    batch = log_batch(behavior_logprobs=[[-1.0]] * 2, reference_logprobs=[[-1.5]] * 2, sequence_id=[7, 5])
    assert ids(list(numbered(iter([batch]), part))) == [7, 5]
    holed = log_batch(behavior_logprobs=[[-1.0]] * 2, reference_logprobs=[[-1.5]] * 2, sequence_id=[7, None])
    assert len(set(ids(list(numbered(iter([holed]), part))))) == 2
