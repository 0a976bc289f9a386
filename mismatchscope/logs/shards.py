"""The files of a recorder: each is there as a whole or not at all, and no two processes write one of the same name.

    DIRECTORY/<start>-<random>-rank00003-000017.parquet

`<start>-<random>` is of one process: a run that is started again, and every rank, adds files of its own. A process
that is killed while it writes leaves a hidden file `.….tmp`, which no reader takes for a log.
"""

from __future__ import annotations

import contextlib
import datetime
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..durable import write_atomic

if TYPE_CHECKING:
    import pyarrow as pa

MARK = b"mismatchscope.log"
"""Key in the metadata of every shard's schema; its value is the version of the form, `FORM`."""
FORM = b"1"
TRAINER = b"mismatchscope.trainer"
"""Key whose value says which trainer the rows are of, where the recorder was told."""

_ABANDONED_AFTER_S = 3600


class ShardWriter:
    """Writes batches of rows into a directory that it makes, one file each time.

    Raises `OSError` where the directory cannot be made or a file not be written; that file is then not there.
    """

    def __init__(self, directory: Path, trainer: str | None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.count = 0
        start = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S")
        self._prefix = f"{start}-{secrets.token_hex(4)}"
        self._metadata = {MARK: FORM} | ({TRAINER: trainer.encode()} if trainer else {})
        _remove_abandoned(directory)

    def write(self, batches: Sequence[pa.RecordBatch], rank: int | None = None) -> Path:
        """One file of these rows, on the disk when this returns. The batches have one schema."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.Table.from_batches(batches).replace_schema_metadata(self._metadata)
        options: Any = {
            "use_dictionary": [name for name in table.column_names if table.schema.field(name).type == pa.string()],
            "use_byte_stream_split": [
                f"{name}.list.element"
                for name in table.column_names
                if pa.types.is_list(kind := table.schema.field(name).type) and pa.types.is_floating(kind.value_type)
            ],
        }
        buffer = pa.BufferOutputStream()
        pq.write_table(table, buffer, compression="zstd", compression_level=1, **options)
        path = self.directory / f"{self._prefix}-rank{rank or 0:05d}-{self.count:06d}.parquet"
        write_atomic(path, buffer.getvalue().to_pybytes())
        self.count += 1
        return path


def _remove_abandoned(directory: Path) -> None:
    """Remove what processes that were killed while writing have left, once it is too old to be in use."""
    for path in directory.glob(".*.parquet.*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _ABANDONED_AFTER_S:
                path.unlink()
