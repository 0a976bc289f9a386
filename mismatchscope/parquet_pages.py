"""The pages of a Parquet file, by their headers: how many values each decodes to, before any of them is decoded.

The footer of a file says what somebody wrote into it. What a reader allocates is decided by the headers of the
pages, which are Thrift structures in the compact protocol (parquet-format, `PageHeader` in parquet.thrift).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

if TYPE_CHECKING:
    import pyarrow.parquet as pq

DATA, DICTIONARY, DATA_V2 = 0, 2, 3
"""Kinds of pages; there is a fourth, of an index, which nobody writes."""

DICTIONARY_ENCODINGS = (2, 8)
"""Of data pages that hold indices into the dictionary of their column."""

DELTA_BYTE_ARRAY = 7
"""Each text is so many bytes of the one before, and a rest."""

_FIRST_READ, _MAX_HEADER = 1024, 16 * 2**20
_COUNTS_AND_ENCODING = {DATA: (5, 1, 2), DICTIONARY: (7, 1, 2), DATA_V2: (8, 1, 4)}
"""By the kind of a page: the fields of its own header, of its number of values, and of their encoding."""

_BOOLEANS, _INTEGERS, _DOUBLE, _BINARY, _LISTS, _STRUCT = (1, 2), (3, 4, 5, 6), 7, 8, (9, 10), 12
_MAX_STRUCTURES = 16

Fields = dict[int, "int | Fields"]


class Page(NamedTuple):
    """`values` are those that it claims to hold, `size` the bytes of them once they are decompressed."""

    kind: int
    values: int
    encoding: int
    size: int


class BrokenPageError(ValueError):
    """A header that is none, or contradicts the footer."""


def pages(file: BinaryIO, chunk: pq.ColumnChunkMetaData) -> Iterator[Page]:
    """The pages of a column in a row group, in order. Raises `BrokenPageError`."""
    at = chunk.data_page_offset
    dictionary_at = chunk.dictionary_page_offset
    if dictionary_at is not None and 0 < dictionary_at < at:
        at = dictionary_at
    end, values = at + chunk.total_compressed_size, 0
    while values < chunk.num_values and at < end:
        header, length = _header(file, at)
        kind, size, compressed = (header.get(field, -1) for field in (1, 2, 3))
        if not isinstance(kind, int) or not isinstance(size, int) or not isinstance(compressed, int):
            raise BrokenPageError("a page has a header of another kind")
        if compressed < 0 or size < 0 or at + length + compressed > end:
            raise BrokenPageError("a page is longer than its column")
        own, count_field, encoding_field = _COUNTS_AND_ENCODING.get(kind, (0, 0, 0))
        inner = header.get(own)
        if isinstance(inner, dict):
            count, encoding = inner.get(count_field, -1), inner.get(encoding_field, -1)
            if not isinstance(count, int) or not isinstance(encoding, int) or count < 0:
                raise BrokenPageError("a page does not say how many values it has")
            yield Page(kind, count, encoding, size)
            values += count if kind != DICTIONARY else 0
        at += length + compressed
    if values != chunk.num_values:
        raise BrokenPageError(
            f"the pages of {chunk.path_in_schema} have {values} values, its metadata {chunk.num_values}"
        )


def _header(file: BinaryIO, at: int) -> tuple[Fields, int]:
    """The header of the page that begins there, and its length. What it says beside numbers is passed over."""
    wanted = _FIRST_READ
    while True:
        file.seek(at)
        data = file.read(wanted)
        try:
            return _structure(data, 0, _MAX_STRUCTURES)
        except IndexError:
            if len(data) < wanted or wanted >= _MAX_HEADER:
                raise BrokenPageError("a page has no header") from None
            wanted *= 16


def _structure(data: bytes, at: int, deeper: int) -> tuple[Fields, int]:
    """The fields of a structure by their numbers, and where it ends."""
    if not deeper:
        raise BrokenPageError("the header of a page is nested too deep")
    fields: Fields = {}
    number = 0
    while head := data[at]:
        at += 1
        kind, step = head & 15, head >> 4
        if step:
            number += step
        else:
            number, at = _signed(data, at)
        if kind in _BOOLEANS:
            fields[number] = int(kind == _BOOLEANS[0])
        elif kind in _INTEGERS:
            # A byte is itself, the wider ones are in zigzag order.
            fields[number], at = (data[at], at + 1) if kind == _INTEGERS[0] else _signed(data, at)
        elif kind == _STRUCT:
            fields[number], at = _structure(data, at, deeper - 1)
        elif kind == _BINARY:
            length, at = _unsigned(data, at)
            at += length
        elif kind == _DOUBLE:
            at += 8
        else:
            raise BrokenPageError("the header of a page has what none has")
        if at >= len(data):
            raise IndexError
    return fields, at + 1


def _unsigned(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise BrokenPageError("the header of a page has a number without end")


def _signed(data: bytes, at: int) -> tuple[int, int]:
    value, at = _unsigned(data, at)
    return (value >> 1) ^ -(value & 1), at
