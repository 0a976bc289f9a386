"""Files that somebody names, opened and read: regular files of bounded size, JSON of bounded depth.

A pipe never ends or hangs before it begins, a device has no end, a sparse file is larger than any memory: none of
them is opened. What a library opens by its path is checked by `check_regular` first. Every refusal is an `OSError`
or a `ValueError`, whose text is a clause without the file's name: the caller knows what the file is for.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from io import DEFAULT_BUFFER_SIZE, BufferedReader, FileIO
from pathlib import Path
from typing import Any

DOCUMENT_BYTES = 64 * 2**20
"""What a document that is read whole may have, unless its caller expects more. The largest of them have a tenth."""

MAX_DEPTH = 100
"""Lists and objects within one another, in JSON and TOML. Configurations have ten."""

MAX_DIGITS = 100
"""Of an integer. Some tokenizers write their greatest length as one of 31."""

_SPARSE_BYTES, _SPARSE_SHARE = 2**30, 1000
"""A file of more bytes, of which not one in so many is on the disk, is a hole and no data."""

_CHUNK_BYTES = 2**20

_KINDS: dict[Callable[[int], bool], str] = {
    stat.S_ISDIR: "it is a directory, not a file",
    stat.S_ISFIFO: "it is a pipe, which can be read once and may never end, not a regular file",
    stat.S_ISSOCK: "it is a socket, not a regular file",
    stat.S_ISCHR: "it is a device, not a regular file",
    stat.S_ISBLK: "it is a device, not a regular file",
}

# Anything that may be an integer of too many digits; most are within a text.
_MANY_DIGITS = re.compile(rb"\d{%d}" % (MAX_DIGITS + 1))


class UnusableFileError(OSError):
    """What is named is there and no regular file, or is too large; `strerror` says so in a clause."""

    def __str__(self) -> str:
        return str(self.strerror)


def reason(error: Exception) -> str:
    """Why a file cannot be read, as a clause: what the system, or this module, says of it, without its name."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error).rstrip(".")


def misfit(found: Mapping[str, Any]) -> str:
    """What a pydantic error says of one value, as a clause; its words for a key that nobody knows are not ours."""
    unknown = found["type"] in ("unexpected_keyword_argument", "extra_forbidden")
    return "this key is not known" if unknown else str(found["msg"])


def check_regular(path: Path, limit: int | None = None) -> int:
    """The size of a regular file, in bytes; a link to one is followed.

    Raises `UnusableFileError` for anything else, for more than `limit` bytes and for a sparse file of almost
    nothing but holes; `OSError` where nothing is there.
    Nothing else is opened: opening a pipe waits for its other end, and opening a device may change what it does.
    """
    facts = os.stat(path)
    size = _checked_size(facts, path, limit)
    if size > _SPARSE_BYTES and facts.st_blocks * 512 < size // _SPARSE_SHARE and _has_holes(path, size):
        raise UnusableFileError(
            errno.EINVAL, f"it is sparse: of its {size / 2**30:,.0f} GiB almost nothing is there", str(path)
        )
    return size


def open_regular(
    path: Path, limit: int | None = None, buffer_bytes: int = DEFAULT_BUFFER_SIZE
) -> BufferedReader[FileIO]:
    """A regular file, open for reading its bytes. Raises what `check_regular` raises."""
    check_regular(path, limit)
    # It may have become something else since: a pipe that is opened so does not wait.
    file = open(path, "rb", buffering=0, opener=_open_without_waiting)  # noqa: SIM115 - the caller's to close
    try:
        _checked_size(os.fstat(file.fileno()), path, limit)
        return BufferedReader(file, buffer_bytes)
    except BaseException:
        file.close()
        raise


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)


def read_bytes(path: Path, limit: int = DOCUMENT_BYTES) -> bytes:
    """All of a regular file of at most `limit` bytes. Raises what `check_regular` raises."""
    data = bytearray()
    with open_regular(path, limit) as file:
        # Of some files of /proc the size is 0, and others grow while they are read.
        while chunk := file.read(min(_CHUNK_BYTES, limit + 1 - len(data))):
            data += chunk
    if len(data) > limit:
        raise _too_large(path, limit)
    return bytes(data)


def read_text(path: Path, limit: int = DOCUMENT_BYTES) -> str:
    """All of a regular file of UTF-8 text. Raises what `read_bytes` raises, and `ValueError` for other bytes."""
    return read_bytes(path, limit).decode("utf-8")


def read_json(path: Path, limit: int = DOCUMENT_BYTES) -> Any:
    """The value in a JSON file. Raises what `read_bytes` and `parse_json` raise."""
    return parse_json(read_bytes(path, limit))


def parse_json(data: bytes | str, object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """The value of a JSON text.

    Raises `ValueError` for anything else, for what is nested more than `MAX_DEPTH` deep and for an integer of more
    than `MAX_DIGITS` digits.
    """
    raw = data.encode(errors="surrogatepass") if isinstance(data, str) else data
    parse_int = _bounded_int if _MANY_DIGITS.search(raw) else None
    try:
        value = json.loads(data, object_pairs_hook=object_pairs_hook, parse_int=parse_int)
    except RecursionError:
        raise _too_deep() from None
    except MemoryError:
        raise ValueError("it needs more memory than there is") from None
    check_depth(value)
    return value


def json_bytes(path: Path, limit: int = DOCUMENT_BYTES) -> bytes:
    """The bytes of a JSON file, for a parser that bounds the depth by itself, as pydantic's does.

    Raises what `read_bytes` raises, and `ValueError` for an integer of more than `MAX_DIGITS` digits.
    """
    data = read_bytes(path, limit)
    if _MANY_DIGITS.search(data):
        parse_json(data)
    return data


def check_depth(value: Any) -> None:
    """Raise `ValueError` for lists and objects that are nested more than `MAX_DEPTH` deep."""
    layer = _containers([value])
    for _ in range(MAX_DEPTH):
        if not layer:
            return
        layer = [
            inner for outer in layer for inner in _containers(outer.values() if isinstance(outer, dict) else outer)
        ]
    if layer:
        raise _too_deep()


def _containers(values: Iterable[Any]) -> list[dict[Any, Any] | list[Any]]:
    return [value for value in values if isinstance(value, dict | list)]


def _checked_size(facts: os.stat_result, path: Path, limit: int | None) -> int:
    if not stat.S_ISREG(facts.st_mode):
        why = next((why for is_kind, why in _KINDS.items() if is_kind(facts.st_mode)), "it is no regular file")
        raise UnusableFileError(errno.EINVAL, why, str(path))
    if limit is not None and facts.st_size > limit:
        raise _too_large(path, limit)
    return facts.st_size


def _has_holes(path: Path, size: int) -> bool:
    """Some file systems count no blocks; where they know of no holes, there is one at the end alone."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.lseek(descriptor, 0, os.SEEK_HOLE) < size
    finally:
        os.close(descriptor)


def _too_large(path: Path, limit: int) -> UnusableFileError:
    return UnusableFileError(errno.EOVERFLOW, f"it has more than {limit / 2**20:,.0f} MiB", str(path))


def _too_deep() -> ValueError:
    return ValueError(f"it is nested more than {MAX_DEPTH} deep")


def _bounded_int(digits: str) -> int:
    if len(digits.lstrip("-")) > MAX_DIGITS:
        raise ValueError(f"it has an integer of more than {MAX_DIGITS} digits")
    return int(digits)
