"""All of a log at once, for tests."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa

from mismatchscope.logs.reading import Log


def read_all(log: Log) -> tuple[pa.Table, Counter[str], tuple[str, ...]]:
    """The rows of a log, what was rejected of it, and what was remarked."""
    batches = [batch for part in log.parts() for batch in log.read(part)]
    tables = [pa.Table.from_batches([batch.rows]) for batch in batches if batch.rows.num_rows]
    rejected: Counter[str] = Counter()
    for batch in batches:
        rejected.update(batch.rejected)
    remarks = tuple(remark for batch in batches for remark in batch.remarks)
    return pa.concat_tables(tables, promote_options="default") if tables else pa.table({}), rejected, remarks
