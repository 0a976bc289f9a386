"""Small batches put together say the same as one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mismatchscope.analysis import joined_batches
from mismatchscope.analysis.joined_batches import joined
from mismatchscope.analysis.rows import Rejected, blocks_of
from mismatchscope.logs.source import LogBatch, Part


def batch_of(file: int, rows: int, *, extra: bool = False) -> LogBatch:
    rng = np.random.default_rng(file)
    logp = [(-rng.exponential(size=3)).tolist() for _ in range(rows)]
    columns = {"behavior_logprobs": logp, "reference_logprobs": logp, "step": [file] * rows, "prompt": [7] * rows}
    columns["sequence_id"] = list(range(rows))
    columns |= {"reward": [0.5] * rows} if extra else {}
    table = pa.RecordBatch.from_pydict(columns).replace_schema_metadata({"file": str(file)})
    return LogBatch(table, Part(Path(f"{file}")), Counter(bad=file), (f"remark {file % 2}",))


def seen(batches: Iterator[tuple[int, LogBatch]]) -> list[tuple[int, int, float]]:
    return [
        (int(identity), int(step), float(logp))
        for file, batch in batches
        for block in blocks_of(batch, Rejected(), file)
        for identity, step, logp in zip(
            block.sequence_id_S, block.by_row["step"], block.logp_R["behavior"][::3], strict=True
        )
    ]


@pytest.mark.parametrize("size", [1, 300, 10**9])
def test_ids_and_order_stay(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(joined_batches, "SMALL_BYTES", size)
    batches = [(file, batch_of(file, 1 + file % 4, extra=file > 5)) for file in range(9)]
    together = list(joined(iter(batches)))
    assert seen(iter(together)) == seen(iter(batches))
    assert sum((batch.rejected for _, batch in together), Counter()) == Counter(bad=36)
    assert {remark for _, batch in together for remark in batch.remarks} == {"remark 0", "remark 1"}
    if size == 10**9:
        assert len(together) == 2, "files with other columns stay apart"
    if size == 1:
        assert [file for file, _ in together] == list(range(9))


def test_rows_without_ids_stay_with_their_file() -> None:
    batches = []
    for file in range(3):
        one = batch_of(file, 2)
        rows = one.rows.select([name for name in one.rows.schema.names if name != "sequence_id"])
        batches.append((file, LogBatch(rows, one.part)))
    assert list(joined(iter(batches))) == batches
