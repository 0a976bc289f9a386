"""JSON lines of any size: cut into ranges of bytes that begin behind a newline, and read row by row.

A line is read at once, so it must fit into memory: one of more than `LINE_BYTES` is refused.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..foreign_text import printable
from ..input_files import check_regular, open_regular, parse_json
from .source import Part

PART_BYTES = 16 * 2**20
LINE_BYTES = 512 * 2**20
"""Of one row: a million tokens with every column that a trainer writes."""

_CHUNK_BYTES = 2**20
_FIRST_LINES, _FIRST_LINES_BYTES = 4, 64 * 2**20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BEGINS_OBJECT = re.compile(rb"(?:\A(?:\xef\xbb\xbf)?|\n)\s*\{")
_KEY = re.compile(rb'"(\w+)"\s*:')
_NUMBERS_ABROAD = re.compile(rb"[^\w\"](?:NaN|-?Infinity)")


def keys_of(path: Path, head: bytes) -> frozenset[str]:
    """The keys of the objects in the first lines of a file that begins with `head`; none where that is no JSON.

    A first line may be blank, of somebody's tool, or what a crash left.
    """
    return keys_in(path) if path.suffix == ".jsonl" or _BEGINS_OBJECT.search(head) else frozenset()


def keys_in(path: Path) -> frozenset[str]:
    """The same of a file that is JSON lines."""
    return _first_keys(path, check_regular(path))


@lru_cache(maxsize=1)
def _first_keys(path: Path, size: int) -> frozenset[str]:
    keys: set[str] = set()
    left = _FIRST_LINES_BYTES
    with open_regular(path) as file:
        for _ in range(_FIRST_LINES):
            line = file.readline(left)
            left -= len(line)
            if line.removeprefix(_BYTE_ORDER_MARK).lstrip().startswith(b"{"):
                keys.update(key.decode() for key in _KEY.findall(line))
    return frozenset(keys)


def parts_of(path: Path, start: int = 0, stop: int | None = None) -> list[Part]:
    """Ranges of whole lines, of about `PART_BYTES`, from `start` to `stop` or to where the file ends now."""
    size = check_regular(path) if stop is None else stop
    parts: list[Part] = []
    with open_regular(path) as file:
        while start < size:
            end = _behind_newline(file, min(start + PART_BYTES, size) - 1, size)
            parts.append(Part(path, start, end))
            start = end
    return parts


def whole_lines(path: Path, start: int = 0) -> int:
    """Where the last whole line of a file that grows ends, at or behind `start`."""
    stop = check_regular(path)
    with open_regular(path) as file:
        while stop > start:
            begin = max(start, stop - _CHUNK_BYTES)
            file.seek(begin)
            newline = file.read(stop - begin).rfind(b"\n")
            if newline >= 0:
                return begin + newline + 1
            stop = begin
    return start


def _behind_newline(file: Any, place: int, size: int) -> int:
    """The place behind the first newline at or behind `place`."""
    file.seek(place)
    while chunk := file.read(_CHUNK_BYTES):
        newline = chunk.find(b"\n")
        if newline >= 0:
            return min(place + newline + 1, size)
        place += len(chunk)
    return size


def rows_of(part: Part, rejected: Counter[str], remarks: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a part, each with the byte at which its line begins.

    Lines that are no JSON object go to `rejected`, but for a last one without an end, which goes to `remarks`:
    whoever writes it is not done with it. Raises `ValueError` for a line of more than `LINE_BYTES`.
    """
    stop = part.stop if part.stop is not None else check_regular(part.path)
    place = part.start
    with open_regular(part.path, buffer_bytes=_CHUNK_BYTES) as file:
        if place == 0 and file.read(len(_BYTE_ORDER_MARK)) == _BYTE_ORDER_MARK:
            place = len(_BYTE_ORDER_MARK)
        file.seek(place)
        while line := file.readline(min(stop - place, LINE_BYTES + 1)):
            if len(line) > LINE_BYTES:
                raise ValueError(f"it has a line of more than {LINE_BYTES // 2**20} MiB behind byte {place:,}")
            value = _value_of(line)
            if isinstance(value, dict):
                yield place, value
                del value  # for the next line to be parsed into its memory, which is in the processor's cache
            elif value is not _NO_JSON:
                rejected["no JSON object"] += 1
            elif line.strip():
                if line.endswith(b"\n"):
                    rejected["no JSON"] += 1
                else:
                    remarks.append(f"The last line of {printable(str(part.path))} has no end and is left out.")
            place += len(line)


_NO_JSON = object()


def _value_of(line: bytes) -> Any:
    import orjson

    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        # Python's own json writes numbers that JSON does not have.
        if _NUMBERS_ABROAD.search(line):
            try:
                return parse_json(line)
            except ValueError:
                return _NO_JSON
        return _NO_JSON
