"""A complete trace, read lazily: what is asked for is read, in slices that fit.

Shapes: N rows of tokens.parquet, R full distributions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..errors import TraceError
from ..file_errors import file_errors
from ..input_files import check_regular, open_regular, parse_json, reason
from ..parquet_files import BrokenPageError, ExpandingFileError, check_expansion, open_parquet
from ..records import Evidence, Request, SequenceRecord, finished_parts, request_to_score
from .packing import sha256_of
from .row_groups import batches_of
from .schema import (
    DISTRIBUTIONS,
    MANIFEST,
    PARTS,
    RESUME,
    SEQUENCES,
    TOKENS,
    Manifest,
    read_manifest,
)
from .table_checks import check_types, checked
from .trace_records import records_of

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

BATCH_ROWS = 16384
READ_BYTES = 1024 * 1024


class _Layout(NamedTuple):
    """Where distributions.safetensors has its two tensors, in bytes, and their shapes."""

    logprobs_at: int
    row_at: int
    rows: int
    width: int


class Trace:
    """One policy seen along many sequences. `Trace.open` is the way in."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    @file_errors("The trace cannot be read", hint="copy the whole directory of the trace again", kind=TraceError)
    def open(cls, path: Path, *, verify: bool = True) -> Trace:
        """Open a complete trace; `verify` compares the sha256 of every file with the manifest.

        Raises `TraceError` for a trace that is missing, incomplete, of another schema, truncated or altered.
        """
        path = Path(path)
        manifest = read_manifest(path)
        if not manifest.complete:
            done = len(finished_parts(path / PARTS))
            raise TraceError(f"{path} is incomplete: {done} of its sequences are finished.", hint=RESUME)
        expected = {SEQUENCES, TOKENS} | ({DISTRIBUTIONS} if manifest.counts.full_states else set())
        if set(manifest.files) != expected:
            raise TraceError(f"{path / MANIFEST} lists {sorted(manifest.files)} instead of {sorted(expected)}.")
        trace = cls(path, manifest)
        for name, checksum in sorted(manifest.files.items()):
            if not (path / name).exists():
                raise TraceError(f"{path / name} is missing.", hint="copy the whole directory of the trace again")
            with reading(path / name):
                check_regular(path / name)
            if verify and sha256_of(path / name) != checksum:
                raise TraceError(
                    f"{path / name} is truncated or altered: its sha256 is not the one in {MANIFEST}.",
                    hint="copy the trace again from where it was written, or write it again",
                )
        trace._check_tables()
        return trace

    @property
    def evidence(self) -> Evidence:
        return self.manifest.evidence

    @cached_property
    def sha256(self) -> str:
        """Identity of the trace: the sha256 of its manifest, which holds those of all files."""
        return sha256_of(self.path / MANIFEST)

    @cached_property
    def sequence_columns(self) -> list[str]:
        return self.parquet(SEQUENCES).schema_arrow.names

    @cached_property
    def token_columns(self) -> list[str]:
        return self.parquet(TOKENS).schema_arrow.names

    def token_schema(self, columns: list[str]) -> pa.Schema:
        import pyarrow as pa

        schema = self.parquet(TOKENS).schema_arrow
        return pa.schema([schema.field(name) for name in columns])

    @property
    def distribution_width(self) -> int:
        """Columns of the full distributions. Raises `TraceError` for a trace that has none."""
        return self._distributions.width

    @property
    def vocabulary_size(self) -> int | None:
        """Columns of the full distributions where there are any, else what the manifest says."""
        return self.distribution_width if self.manifest.counts.full_states else self.manifest.model.vocabulary_size

    def sequences(self, columns: list[str] | None = None) -> pd.DataFrame:
        """One row a sequence, as a pandas frame. Raises `UsageError` for a column that the trace has not."""
        from .frames import sequences_frame

        return sequences_frame(self, columns)

    def tokens(self, columns: list[str] | None = None) -> pd.DataFrame:
        """One row a response token, in order, as a pandas frame; all of it is in memory."""
        from .frames import tokens_frame

        return tokens_frame(self, columns)

    def read_sequences(self, columns: list[str] | None = None) -> pa.Table:
        """sequences.parquet, one row a sequence."""
        import pyarrow as pa

        with reading(self.path / SEQUENCES):
            table = self.parquet(SEQUENCES).read(columns=columns)
            return pa.Table.from_batches(checked(self.path / SEQUENCES, table.to_batches()), table.schema)

    def find_sequences(self, sequence_ids: set[int], columns: list[str]) -> pa.Table | None:
        """Some rows of sequences.parquet, with their ids; None where a column is not there.

        Reads only the row groups whose range of ids holds one of them.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        with reading(self.path / SEQUENCES):
            file = self.parquet(SEQUENCES)
            if not set(columns) <= set(file.schema_arrow.names):
                return None
            names = ["sequence_id", *columns]
            found = batches_of(self.path / SEQUENCES, file, sequence_ids, names)
            schema = pa.schema([file.schema_arrow.field(name) for name in names])
            table = pa.Table.from_batches([batch for _, batch in found], schema)
            return table.filter(pc.is_in(table["sequence_id"], pa.array(sorted(sequence_ids), pa.int64())))

    def iter_sequences(self, columns: list[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
        """sequences.parquet in order, at most `batch_rows` rows at a time."""
        with reading(self.path / SEQUENCES):
            batches = self.parquet(SEQUENCES).iter_batches(batch_size=batch_rows, columns=columns)
            yield from checked(self.path / SEQUENCES, batches)

    def iter_tokens(
        self, columns: list[str] | None = None, batch_rows: int = BATCH_ROWS
    ) -> Iterator[pa.RecordBatch]:
        """tokens.parquet in order, at most `batch_rows` rows at a time."""
        with reading(self.path / TOKENS):
            batches = self.parquet(TOKENS).iter_batches(batch_size=batch_rows, columns=columns)
            yield from checked(self.path / TOKENS, batches)

    def full_rows(self) -> np.ndarray:
        """int64 [R], rising: the rows of tokens.parquet that have a full distribution."""
        if not self.manifest.counts.full_states:
            return np.zeros(0, dtype=np.int64)
        layout = self._distributions
        row_R = np.fromfile(self.path / DISTRIBUTIONS, dtype="<i8", count=layout.rows, offset=layout.row_at)
        if (np.diff(row_R) <= 0).any() or row_R[0] < 0 or row_R[-1] >= self.manifest.counts.tokens:
            raise TraceError(f"{self.path / DISTRIBUTIONS}: `row` is not a rising list of rows of {TOKENS}.")
        return row_R

    def full_logprobs(self, start: int, stop: int) -> np.ndarray:
        """float32 [stop - start, V]: these full distributions, as a view of the file that is read when used."""
        layout = self._distributions
        if not 0 <= start <= stop <= layout.rows:
            raise IndexError(f"{start}:{stop} of {layout.rows} distributions")
        shape = (stop - start, layout.width)
        if start == stop:
            return np.zeros(shape, dtype=np.float32)
        at = layout.logprobs_at + 4 * layout.width * start
        return np.asarray(np.memmap(self.path / DISTRIBUTIONS, dtype="<f4", mode="r", offset=at, shape=shape))

    def requests(self, evidence: Evidence | None = None) -> Iterator[Request]:
        """Its sequences as requests to score the same tokens, with `evidence` (default: the trace's).

        They are those that `records.request_to_score` makes of the sequences before they are packed.
        """
        evidence = evidence or self.evidence
        for record in records_of(self, logprobs=False, topk=evidence.level == "topk"):
            yield request_to_score(record, evidence, self.manifest.policy)

    def records(self) -> Iterator[SequenceRecord]:
        """Its sequences with all that was seen of their tokens, but for whole distributions."""
        return records_of(self, logprobs=True, topk=True)

    @cached_property
    def _distributions(self) -> _Layout:
        from safetensors import SafetensorError, safe_open

        path = self.path / DISTRIBUTIONS
        try:
            with safe_open(path, framework="numpy"):  # checks the header against the size of the file
                pass
            with open_regular(path) as handle:
                header_bytes = int.from_bytes(handle.read(8), "little")
                header = parse_json(handle.read(header_bytes))
        except (OSError, SafetensorError, ValueError) as error:
            raise TraceError(f"{path} is truncated or altered: {error}.") from error
        kinds = {name: (entry["dtype"], len(entry["shape"])) for name, entry in header.items() if "dtype" in entry}
        shape = header["logprobs"]["shape"] if kinds == {"logprobs": ("F32", 2), "row": ("I64", 1)} else [0]
        if shape[0] != self.manifest.counts.full_states or header["row"]["shape"] != shape[:1]:
            raise TraceError(f"{path} does not hold `logprobs` [R, V] float32 and `row` [R] int64 of all R states.")
        logprobs_at, row_at = (8 + header_bytes + header[name]["data_offsets"][0] for name in ("logprobs", "row"))
        return _Layout(logprobs_at, row_at, *shape)

    def parquet(self, name: str) -> pq.ParquetFile:
        """One of its tables, opened."""
        with reading(self.path / name):
            return open_parquet(
                self.path / name,
                page_checksum_verification=True,
                buffer_size=READ_BYTES,
                pre_buffer=False,  # it would keep all that was read until the end of the file
            )

    def _check_tables(self) -> None:
        """The contract's columns are there, with as many rows as the manifest counts."""
        counts = self.manifest.counts
        for name, rows in ((SEQUENCES, counts.sequences), (TOKENS, counts.tokens)):
            file = self.parquet(name)
            check_types(self.path / name, file.schema_arrow, topk=self.evidence.level == "topk")
            with reading(self.path / name):
                check_expansion(self.path / name, file)
            if file.metadata.num_rows != rows:
                raise TraceError(f"{self.path / name} has {file.metadata.num_rows} rows, {MANIFEST} counts {rows}.")
        if counts.full_states:
            _ = self._distributions


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """What Arrow says of a broken file, as a sentence that names it."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, BrokenPageError, ExpandingFileError, OSError) as error:
        why = reason(error).splitlines()[0]
        raise TraceError(f"{path} cannot be read: {why}.", hint="write the trace again") from error
