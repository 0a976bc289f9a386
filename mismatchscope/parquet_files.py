"""Parquet files that somebody names: opened where they decode to what their size, or the memory here, allows.

A dictionary or a run of equal values lets a few kilobytes stand for any number of rows, and one row for any number
of list entries. Tables are read a batch of rows at a time, so it is the columns of a row group with lists or texts
that must fit into memory; of the whole file the time it takes must be bounded.
"""

from __future__ import annotations

import resource
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from .input_files import check_regular, open_regular
from .parquet_pages import DELTA_BYTE_ARRAY, DICTIONARY, DICTIONARY_ENCODINGS, BrokenPageError, pages

if TYPE_CHECKING:
    import pyarrow.parquet as pq

EXPANSION = 1000
"""How many times its size a file may decode to, beside what `SHARE_OF_MEMORY` always leaves. Columns of equal
values reach it; text, ids and log-probs come to 3 to 20."""

SHARE_OF_MEMORY = 8
"""A file that decodes to less than this fraction of the memory that is free is read, however small it is."""

COLUMN_EXPANSION = 50
"""As `EXPANSION`, for lists or texts of one row group, which a single row may hold all of."""

_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}
_LEVELS, _OFFSETS = 4, 4  # bytes of two int16 levels, and of where a text ends
_BATCH_ROWS = 4096


class ExpandingFileError(ValueError):
    """A Parquet file that decodes to far more than its size; its text says so in a clause."""


def open_parquet(path: Path, **options: Any) -> pq.ParquetFile:
    """A Parquet file, opened with these options of `pyarrow.parquet.ParquetFile`.

    Raises `UnusableFileError` for what is no regular file, and what pyarrow raises for a broken one.
    """
    import pyarrow.parquet as pq

    check_regular(path)
    return pq.ParquetFile(path, **options)


def check_expansion(path: Path, file: pq.ParquetFile, columns: Collection[str] | None = None) -> None:
    """Raise `ValueError` where the pages of a file decode to more than its size and the free memory allow.

    `columns` are those that will be read, all by default; they are at the top, and may have others within them.
    The bytes are those of the values alone, and an upper bound: a text of a dictionary counts as the longest one,
    unless that comes to too much; then they are added up.
    """
    size, free = check_regular(path), _free_memory()
    share = free // SHARE_OF_MEMORY
    total = 0
    with open_regular(path) as opened:
        for group in range(file.num_row_groups):
            facts = file.metadata.row_group(group)
            for column in range(facts.num_columns):
                chunk = facts.column(column)
                if columns is not None and not _is_within(chunk.path_in_schema, columns):
                    continue
                decoded, is_bound = _decoded_bytes(opened, chunk, file.schema.column(column))
                allowed = share + COLUMN_EXPANSION * chunk.total_compressed_size
                if is_bound and (decoded > allowed or total + decoded > share + EXPANSION * size):
                    decoded = _text_bytes(path, group, chunk.path_in_schema, allowed)
                total += decoded
                fixed = facts.num_rows >= chunk.num_values and not is_bound
                if total > share + EXPANSION * size or (decoded > allowed and not fixed):
                    raise ExpandingFileError(
                        f"its {size:,} bytes decode to {total / 2**20:,.0f} MiB or more, of which "
                        f"{chunk.path_in_schema} has {decoded / 2**20:,.0f}"
                    )


def _is_within(leaf: str, columns: Collection[str]) -> bool:
    return any(leaf == column or leaf.startswith(f"{column}.") for column in columns)


def _decoded_bytes(opened: BinaryIO, chunk: pq.ColumnChunkMetaData, column: Any) -> tuple[int, bool]:
    """What a column of a row group decodes to, in bytes; and whether that is a bound that texts may stay below."""
    width = column.length if chunk.physical_type == "FIXED_LEN_BYTE_ARRAY" else _WIDTHS.get(chunk.physical_type)
    levels = _LEVELS if column.max_repetition_level else 0
    total, longest, is_bound = 0, 0, False
    for page in pages(opened, chunk):
        if page.kind == DICTIONARY:
            longest = page.size
            total += page.size
        elif width is not None:
            total += page.values * (width + levels)
        else:
            shared = page.encoding in DICTIONARY_ENCODINGS or page.encoding == DELTA_BYTE_ARRAY
            is_bound |= shared
            text = longest if page.encoding in DICTIONARY_ENCODINGS else page.size
            total += page.values * (_OFFSETS + levels) + (page.values * text if shared else text)
    return total, is_bound


def _text_bytes(path: Path, group: int, column: str, limit: int) -> int:
    """The bytes of all texts of a column in a row group, or of so many that they are more than `limit`.

    They are read as indices into their dictionary, which is decoded once.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path, read_dictionary=[column])
    total = 0
    for batch in file.iter_batches(batch_size=_BATCH_ROWS, row_groups=[group], columns=[column]):
        texts = _leaf(batch.column(0))
        lengths = pc.binary_length(texts.dictionary).take(texts.indices)
        total += pc.sum(lengths).as_py() or 0
        total += (_OFFSETS + _LEVELS) * len(texts)
        if total > limit:
            break
    return total


def _leaf(array: Any) -> Any:
    """The one leaf of a column that was read alone, out of its lists and structs."""
    import pyarrow as pa

    while not isinstance(array, pa.DictionaryArray):
        array = array.flatten()[0] if isinstance(array, pa.StructArray) else array.flatten()
    return array


def _free_memory() -> int:
    """Bytes that this process may still take: of the machine, of its control group, and of its own limits."""
    free = [2**63]
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        free.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]))
    with suppress(OSError, ValueError):  # "max" is no number, and no limit
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text(encoding="utf-8"))
        free.append(limit - int((group / "memory.current").read_text(encoding="utf-8")))
    with suppress(OSError, ValueError):
        own = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        free += [limit - own] if limit != resource.RLIM_INFINITY else []
    return max(0, min(free)) if len(free) > 1 else 4 * 2**30


__all__ = ["BrokenPageError", "ExpandingFileError", "check_expansion", "open_parquet"]
