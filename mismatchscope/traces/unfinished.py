"""What a run left behind that cannot be read: it counts as not made, is removed by name, and is made again.

That is so for an unfinished run alone. A complete trace that cannot be read, or is not what its manifest says, is
refused: somebody may have no other copy of it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path

from ..durable import sync_directory
from ..errors import TraceError
from ..input_files import read_bytes
from ..records import finished_parts, read_part
from .schema import DISTRIBUTIONS, MANIFEST, PARTS, SCHEMA_VERSION, SEQUENCES, TOKENS, Manifest, read_manifest

DATA = (SEQUENCES, TOKENS, DISTRIBUTIONS)


def usable_manifest(path: Path, *, unfinished: bool = False) -> Manifest | None:
    """The manifest of the trace in `path`; None where there is none, or none that a run can go on from.

    That is one which an unfinished run left, and which is truncated or altered. Whether a run is `unfinished` is
    seen from its parts, unless the caller knows it. Raises `TraceError` for any other that cannot be read.
    """
    file = path / MANIFEST
    if not file.exists():
        return None
    try:
        return read_manifest(path)
    except TraceError as error:
        if not _is_damaged(file):
            raise
        if unfinished or (path / PARTS).is_dir() or not any((path / name).exists() for name in DATA):
            return None
        error.hint = f"copy the trace again, or remove {path} yourself: with --resume it is then made again"
        raise


def _is_damaged(file: Path) -> bool:
    """Whether a manifest lost its content; else it is of another schema version, or not ours to read."""
    try:
        content = json.loads(read_bytes(file))
    except OSError:
        return False
    except (ValueError, RecursionError):
        return True
    return not isinstance(content, dict) or content.get("schema_version", SCHEMA_VERSION) == SCHEMA_VERSION


def remove_unusable(path: Path, run: str, wanted: Collection[int], *, unfinished: bool = False) -> list[str]:
    """Remove what an unfinished run left in `path` and no run can go on from; what it was and why, each a clause.

    `run` is what its parts must have been made for, `wanted` the ids of its sequences. All parts are read.
    """
    removed = []
    if (path / MANIFEST).exists() and usable_manifest(path, unfinished=unfinished) is None:
        removed.append(f"{path / MANIFEST} cannot be read, and nothing else says what was made there")
        for name in DATA:
            _unlink(path / name)
        remove_parts(path)
    unusable = dict(_unusable_parts(path, run, wanted))
    remove_parts(path, unusable)
    return [*removed, *unusable.values()]


def _unusable_parts(path: Path, run: str, wanted: Collection[int]) -> Iterator[tuple[int, str]]:
    for sequence_id, part in finished_parts(path / PARTS).items():
        if sequence_id not in wanted:
            yield sequence_id, f"{part} is of a sequence that this run does not have"
            continue
        try:
            read_part(part, run=run)
        except TraceError as error:
            yield sequence_id, error.message.rstrip(".")


def remove_parts(path: Path, sequence_ids: Collection[int] | None = None) -> None:
    """Remove these parts of a trace; without ids all of them, with what a killed run was just writing.

    Files that are no parts stay, and so does the directory that they are in.
    """
    directory = path / PARTS
    if not directory.is_dir():
        return
    for sequence_id, part in finished_parts(directory).items():
        if sequence_ids is None or sequence_id in sequence_ids:
            _unlink(part)
    if sequence_ids is None:
        for file in directory.glob(".*.tmp"):
            file.unlink()
        if not any(directory.iterdir()):
            directory.rmdir()
    sync_directory(path)


def _unlink(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except IsADirectoryError:
        raise TraceError(f"{file} is a directory in the place of a file.", hint="remove it yourself") from None
