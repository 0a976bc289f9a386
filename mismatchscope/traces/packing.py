"""Finished sequences -> the data files of a trace, one sequence at a time, in bounded memory.

Shapes: T response tokens, K observed ids a token, R states with a full distribution, F exact figures, V vocabulary.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from ..durable import sync_directory
from ..errors import DiskFullError, TraceError
from ..file_errors import NO_ROOM, refusal
from ..input_files import open_regular
from ..measures.full import EXACT
from ..records import Observed, SequenceRecord
from .record_columns import sequence_columns, token_columns
from .schema import DISTRIBUTIONS, SEQUENCES, TOKENS, TraceCounts, sequences_schema, tokens_schema

if TYPE_CHECKING:
    import pyarrow as pa

ROW_GROUP_TOKENS = 65536
ROW_GROUP_VALUES = 4 * 1024 * 1024  # top-k entries a row group: 48 MiB while it is being built
HEADER_BYTES = 512  # safetensors allows blanks after its header, so room for the final one is left at the start

_DICTIONARY = ["sequence_id", "prompt_id", "token_id", "finish_reason", "worker", "policy_version", "batch"]
_FLOATS = ["logprob", "topk_logprobs.list.element", "tail_overlap", *EXACT]


@contextmanager
def disk_full_guard(message: str, hint: str) -> Iterator[None]:
    """Turn "no space left", "quota exceeded" and "file too large" into `DiskFullError`, and whatever else the file
    system refuses into `TraceError`."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        if error.errno not in NO_ROOM:
            raise TraceError(
                f"{message} {refusal(error)}.", hint="check that the directory can be written"
            ) from error
        raise DiskFullError(f"{os.strerror(error.errno)}: {message}", hint=hint) from error


class Packer:
    """Writes sequences.parquet, tokens.parquet and, with full evidence, distributions.safetensors.

    Files get their names in `close`, when they are whole and on the disk; leaving the `with` block early removes
    what was written. Records come in rising order of `sequence_id`. Raises `TraceError` for a record that
    contradicts itself or the one before, `OSError` when the disk is full.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._sequences = _Table(directory / SEQUENCES, sequences_schema())
        self._tokens: _Table | None = None
        self._distributions = _Distributions(directory / DISTRIBUTIONS)
        self._kind: tuple[bool, ...] | None = None  # top-k, tail overlap, experts, mask, exact figures
        self._waiting: list[SequenceRecord] = []  # for the next row group, without their distributions
        self._waiting_tokens = 0
        self._last_id = -1
        self._prompts: set[int] = set()
        self._n_sequences = self._n_tokens = 0

    def __enter__(self) -> Packer:
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self._sequences, self._tokens, self._distributions):
            if file is not None:
                file.discard()

    def add(self, record: SequenceRecord, observed: Observed) -> None:
        """Append one sequence as one of its views saw it."""
        self._check(record, observed)
        if observed.full_row_R is not None and observed.full_logprobs_RV is not None:
            self._distributions.add(observed.full_row_R + self._n_tokens, observed.full_logprobs_RV)
        length = len(record.response_token_ids)
        self._last_id = record.sequence_id
        self._prompts.add(record.prompt_id)
        self._n_sequences += 1
        self._n_tokens += length
        without_full = replace(observed, full_row_R=None, full_logprobs_RV=None)
        self._waiting.append(replace(record, observed=without_full, raw=None, beside=None))
        self._waiting_tokens += length
        k = 1 if observed.topk_ids_TK is None else max(1, observed.topk_ids_TK.shape[1])
        if self._waiting_tokens >= min(ROW_GROUP_TOKENS, ROW_GROUP_VALUES // k):
            self._flush()

    def close(self) -> tuple[TraceCounts, dict[str, str]]:
        """Finish the files; returns what they hold and the sha256 of each."""
        self._flush()
        files = [self._sequences, self._tokens, self._distributions]
        written = [file for file in files if file is not None and file.close()]
        for file in written:
            os.replace(file.temporary, file.path)
        sync_directory(self.directory)  # before a manifest names them
        counts = TraceCounts(
            prompts=len(self._prompts),
            sequences=self._n_sequences,
            tokens=self._n_tokens,
            full_states=self._distributions.rows,
        )
        return counts, {file.path.name: sha256_of(file.path) for file in written}

    def _check(self, record: SequenceRecord, observed: Observed) -> None:
        def refusal(what: str) -> TraceError:
            return TraceError(f"Sequence {record.sequence_id} cannot go into {self.directory}: {what}.")

        def demand(condition: bool, what: str) -> None:
            if not condition:
                raise refusal(what)

        length = len(record.response_token_ids)
        ids_TK, logp_TK, tail_T = observed.topk_ids_TK, observed.topk_logprobs_TK, observed.tail_overlap_T
        row_R, logp_RV = observed.full_row_R, observed.full_logprobs_RV
        demand(record.sequence_id > self._last_id, f"it comes after sequence {self._last_id}")
        experts, mask_T, exact_TF = record.experts, record.mask_T, observed.exact_TF
        kind = tuple(each is not None for each in (ids_TK, tail_T, experts, mask_T, exact_TF))
        self._kind = self._kind or kind
        demand(kind == self._kind, "its evidence or its loss mask is not of the kind of those before")
        found = observed.logprob_T.shape
        demand(found == (length,), f"log-probs of shape {found} for {length} response tokens")
        if ids_TK is not None:
            found = (ids_TK.shape, None if logp_TK is None else logp_TK.shape)
            demand(ids_TK.ndim == 2 and len(ids_TK) == length and found[0] == found[1], f"top-k of shapes {found}")
        demand(tail_T is None or tail_T.shape == (length,), "tail overlaps of another length")
        demand(experts is None or (experts.ndim == 3 and len(experts) == length), "experts of another length")
        demand(mask_T is None or mask_T.shape == (length,), "a loss mask of another length")
        demand(exact_TF is None or exact_TF.shape == (length, len(EXACT)), "exact figures of another shape")
        if row_R is None or not len(row_R):
            demand(logp_RV is None or not len(logp_RV), "distributions without their positions")
            return
        if logp_RV is None or len(logp_RV) != len(row_R):
            raise refusal("positions without their distributions")
        rising = row_R[0] >= 0 and row_R[-1] < length and (np.diff(row_R) > 0).all()
        demand(bool(rising), "positions of distributions out of order or range")
        width = self._distributions.width
        demand(width in (None, logp_RV.shape[1]), f"a vocabulary of {logp_RV.shape[1]} after one of {width}")

    def _flush(self) -> None:
        if self._tokens is None:
            topk, tail_overlap, experts, mask, exact = self._kind or (False,) * 5
            schema = tokens_schema(topk=topk, tail_overlap=tail_overlap, experts=experts, mask=mask, exact=exact)
            self._tokens = _Table(self.directory / TOKENS, schema)
        if self._waiting:
            self._sequences.write(sequence_columns(self._waiting))
            self._tokens.write(token_columns(self._waiting))
        self._waiting, self._waiting_tokens = [], 0


class _Table:
    """One Parquet file, written a row group at a time under a temporary name."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        import pyarrow.parquet as pq

        self.path, self.temporary = path, path.with_name(f".{path.name}.tmp")
        self._schema = schema
        dictionary = [name for name in _DICTIONARY if name in schema.names]
        self._handle = open(self.temporary, "wb")  # noqa: SIM115 - closed by close or discard
        self._writer = pq.ParquetWriter(
            self._handle,
            schema,
            compression="zstd",
            write_page_checksum=True,
            use_dictionary=dictionary,  # type: ignore[arg-type] # the stub knows bool alone
            use_byte_stream_split=[name for name in _FLOATS if name.split(".")[0] in schema.names],
        )

    def write(self, columns: dict[str, Any]) -> None:
        import pyarrow as pa

        table = pa.table([columns[name] for name in self._schema.names], schema=self._schema)
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))

    def close(self) -> bool:
        self._writer.close()
        _sync(self._handle)
        return True

    def discard(self) -> None:
        with suppress(OSError, ValueError):  # the footer of a file that goes away has nowhere to go
            self._writer.close()
        self._writer.is_open = False
        with suppress(OSError):
            self._handle.close()
        self.temporary.unlink(missing_ok=True)


class _Distributions:
    """distributions.safetensors, streamed: rows as they come, the header into the room left for it at the end.

    The `safetensors` library writes whole tensors only, and this file may be larger than memory.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.temporary = path, path.with_name(f".{path.name}.tmp")
        self.width: int | None = None
        self.rows = 0
        self._row_R: list[np.ndarray] = []
        self._handle: BinaryIO | None = None

    def add(self, row_R: np.ndarray, logp_RV: np.ndarray) -> None:
        if not len(row_R):
            return
        if self._handle is None:
            self.width = logp_RV.shape[1]
            self._handle = open(self.temporary, "wb")  # noqa: SIM115 - closed by close or discard
            self._handle.write(b" " * HEADER_BYTES)
        self.rows += len(row_R)
        self._row_R.append(row_R)
        self._handle.write(np.ascontiguousarray(logp_RV, dtype="<f4").data)

    def close(self) -> bool:
        """False when there was nothing to write."""
        if self._handle is None or self.width is None:
            return False
        n, size = self.rows, 4 * self.rows * self.width
        header = {
            "logprobs": {"dtype": "F32", "shape": [n, self.width], "data_offsets": [0, size]},
            "row": {"dtype": "I64", "shape": [n], "data_offsets": [size, size + 8 * n]},
        }
        self._handle.write(np.concatenate(self._row_R).astype("<i8").data)
        self._handle.seek(0)
        self._handle.write((HEADER_BYTES - 8).to_bytes(8, "little"))
        self._handle.write(json.dumps(header).encode())
        _sync(self._handle)
        return True

    def discard(self) -> None:
        if self._handle is not None:
            with suppress(OSError):
                self._handle.close()
        self.temporary.unlink(missing_ok=True)


def _sync(handle: BinaryIO) -> None:
    """Parts are deleted once their packing is finished, so it has to be on the disk by then."""
    handle.flush()
    os.fsync(handle.fileno())
    handle.close()


def sha256_of(path: Path) -> str:
    with open_regular(path) as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
