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
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from .input_files import check_regular, open_regular
from .parquet_pages import DELTA_BYTE_ARRAY, DICTIONARY, DICTIONARY_ENCODINGS, BrokenPageError, pages

if TYPE_CHECKING:
    import pyarrow.parquet as pq

EXPANSION = 1000
"""How many times its size a file may decode to, beside what its share of the free memory always leaves. Columns of
equal values reach it; text, ids and log-probs come to 3 to 20."""

SHARE_OF_MEMORY = 8
"""A file that decodes to less than this fraction of the free memory is read, however small it is."""

HONEST_EXPANSION = 20
"""Lists or texts of one row group, all of which may be in a single row, must fit into half of the free memory,
unless they are no more than so many times what they take on the disk."""

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


def check_expansion(
    path: Path, file: pq.ParquetFile, columns: Collection[str] | None = None, share_of_memory: int = SHARE_OF_MEMORY
) -> None:
    """Raise `ValueError` where the pages of a file decode to more than its size and the free memory allow.

    `columns` are those that will be read, all by default; they are at the top, and may have others within them.
    The bytes are those of the values alone, and an upper bound: a text of a dictionary counts as the whole of it,
    unless that comes to too much; then they are added up.
    """
    size, free = check_regular(path), _free_memory()
    share, total = free // share_of_memory, 0
    with open_regular(path) as opened:
        for group in range(file.num_row_groups):
            facts = file.metadata.row_group(group)
            for index in range(facts.num_columns):
                chunk, column = facts.column(index), file.schema.column(index)
                if columns is not None and not _is_within(chunk.path_in_schema, columns):
                    continue
                stored = chunk.total_compressed_size
                allowed = max(min(share + EXPANSION * stored, free // 2), HONEST_EXPANSION * stored)
                decoded = _decoded(opened, chunk, column)
                length = decoded.length
                if decoded.is_bound and (length > allowed or total + length > share + EXPANSION * size):
                    length = _text_bytes(path, group, chunk.path_in_schema, decoded, allowed)
                total += length
                in_one_row = column.max_repetition_level > 0 or chunk.physical_type == "BYTE_ARRAY"
                if total > share + EXPANSION * size or (in_one_row and length > allowed):
                    raise ExpandingFileError(
                        f"its {size:,} bytes decode to {total / 2**20:,.0f} MiB or more, of which "
                        f"{chunk.path_in_schema} has {length / 2**20:,.0f}"
                    )


def _is_within(leaf: str, columns: Collection[str]) -> bool:
    return any(leaf == column or leaf.startswith(f"{column}.") for column in columns)


class _Decoded(NamedTuple):
    """What a column of a row group decodes to, in bytes. Texts that repeat one another may stay below it."""

    length: int
    is_bound: bool = False
    by_dictionary: bool = True
    longest: int = 1


def _decoded(opened: BinaryIO, chunk: pq.ColumnChunkMetaData, column: Any) -> _Decoded:
    width = column.length if chunk.physical_type == "FIXED_LEN_BYTE_ARRAY" else _WIDTHS.get(chunk.physical_type)
    levels = _LEVELS if column.max_repetition_level else 0
    length = dictionary = longest = 0
    by_dictionary = by_prefix = False
    for page in pages(opened, chunk):
        longest = max(longest, page.size)
        if page.kind == DICTIONARY:
            dictionary = page.size
            length += page.size
        elif width is not None:
            length += page.values * (width + levels)
        else:
            length += page.values * (_OFFSETS + levels)
            by_dictionary |= page.encoding in DICTIONARY_ENCODINGS
            by_prefix |= page.encoding == DELTA_BYTE_ARRAY
            if page.encoding in DICTIONARY_ENCODINGS:
                length += page.values * dictionary
            else:
                length += page.size * (page.values if page.encoding == DELTA_BYTE_ARRAY else 1)
    return _Decoded(length, by_dictionary or by_prefix, not by_prefix, max(1, longest))


def _text_bytes(path: Path, group: int, column: str, decoded: _Decoded, limit: int) -> int:
    """The bytes of all texts of a column in a row group, or of so many that they are more than `limit`.

    They are read as indices into their dictionary, which is decoded once, or else so few at a time that they fit.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path, read_dictionary=[column] if decoded.by_dictionary else None)
    rows = _BATCH_ROWS if decoded.by_dictionary else max(1, min(_BATCH_ROWS, limit // decoded.longest))
    total = 0
    for batch in file.iter_batches(batch_size=rows, row_groups=[group], columns=[column]):
        texts = _leaf(batch.column(0))
        is_dictionary = hasattr(texts, "dictionary")
        lengths = (
            pc.binary_length(texts.dictionary).take(texts.indices) if is_dictionary else pc.binary_length(texts)
        )
        total += (pc.sum(lengths).as_py() or 0) + (_OFFSETS + _LEVELS) * len(texts)
        if total > limit:
            break
    return total


def _leaf(array: Any) -> Any:
    """The one leaf of a column that was read alone, out of its lists and structs."""
    import pyarrow as pa

    while isinstance(array, pa.StructArray | pa.ListArray | pa.LargeListArray | pa.MapArray):
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
