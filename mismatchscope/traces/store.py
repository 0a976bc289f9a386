"""A trace's life: created before its run, filled with parts while the run goes on, packed when it has ended.

A kill at any moment loses nothing that was finished: parts are whole files, packing starts again from them, the
manifest says `complete` only once everything else is on the disk, and the parts go last.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..errors import OutputExistsError, TraceError
from ..records import SequenceRecord, finished_parts, read_part, write_atomic
from .packing import Packer, disk_full_guard
from .reader import Trace
from .schema import FACTS, MANIFEST, OUTCOME, PARTS, RESUME, Manifest, TraceCounts, read_manifest

__all__ = ["Manifest", "Trace", "create", "finish", "read_manifest", "write_trace"]


def create(path: Path, manifest: Manifest) -> Path:
    """Make the directory of a trace, with an incomplete manifest and room for parts.

    A trace of the same manifest that is already there is resumed, complete or not; facts that only one of the two
    knows are added to it, so the call is repeated when the engine has loaded and can say what it is.
    Raises `OutputExistsError` when something else is there, `DiskFullError` when there is no room.
    """
    with disk_full_guard(f"{path} could not be created.", hint="make room, or choose another directory with -o"):
        claimed = _claim(path, manifest)
        if not claimed.complete:
            (path / PARTS).mkdir(exist_ok=True)
    return path


def finish(path: Path, *, raw_path: Path | None = None) -> Manifest:
    """Pack the parts of a run into the trace's files, and complete its manifest.

    Where records carry a second, raw view of the same tokens it becomes a complete trace of its own, at `raw_path`
    (default: beside it, named with "-raw"). Does nothing to a trace that is complete already, and gives the same
    bytes however often it was killed before. Raises `TraceError`, `OutputExistsError` (the raw one),
    `DiskFullError`; the parts stay until the trace is complete.
    """
    manifest = read_manifest(path)
    if not manifest.complete:
        parts = sorted(finished_parts(path / PARTS).items())
        if not parts:
            raise TraceError(f"{path} holds no finished sequence.", hint=RESUME)
        kept = f"{path} could not be packed. Its {len(parts)} finished sequences are kept in {path / PARTS}."
        with disk_full_guard(kept, hint=f"make room, then {RESUME}"):
            manifest = _pack(path, manifest, (_read_part(part) for _, part in parts), raw_path)
    shutil.rmtree(path / PARTS, ignore_errors=True)
    return manifest


def write_trace(
    path: Path, manifest: Manifest, records: Iterable[SequenceRecord], *, raw_path: Path | None = None
) -> Manifest:
    """Write a whole trace from records in rising order of `sequence_id`, without parts: for logs and tests.

    Raises `OutputExistsError` when a complete trace, or another one, is there; `TraceError`, `DiskFullError`.
    """
    with disk_full_guard(f"{path} could not be written.", hint="make room, then repeat the command"):
        claimed = _claim(path, manifest)
        if claimed.complete:
            raise OutputExistsError(f"{path} holds a complete trace.", hint="choose another directory with -o")
        return _pack(path, claimed, records, raw_path)


def _claim(path: Path, manifest: Manifest) -> Manifest:
    """Take the directory, or join the same trace in it; returns the manifest that now is on the disk."""
    manifest = manifest.model_copy(update={"complete": False, "files": {}, "counts": TraceCounts()})
    if path.exists() and not path.is_dir():
        raise OutputExistsError(f"{path} is a file.", hint="choose another directory with -o")
    path.mkdir(parents=True, exist_ok=True)
    if (path / MANIFEST).exists():
        old = read_manifest(path)
        differences = _differences(_identity(old), _identity(manifest))
        if differences:
            shown = "; ".join(differences[:3]) + ("; …" if len(differences) > 3 else "")
            raise OutputExistsError(
                f"{path} holds another trace: {shown}.", hint="choose another directory with -o, or add --force"
            )
        if old.complete:
            return old
        known = _merged(old.model_dump(include=set(FACTS)), manifest.model_dump(include=set(FACTS)))
        manifest = manifest.model_copy(
            update={"created": old.created or manifest.created, "notes": manifest.notes or old.notes}
        )
        manifest = Manifest.model_validate(manifest.model_dump() | known)
    elif any(entry.name != PARTS and not entry.name.endswith(".tmp") for entry in path.iterdir()):
        raise OutputExistsError(f"{path} is not empty and no trace.", hint="choose another directory with -o")
    write_atomic(path / MANIFEST, manifest.to_json().encode())
    return manifest


def _pack(path: Path, manifest: Manifest, records: Iterable[SequenceRecord], raw_path: Path | None) -> Manifest:
    raw_path = raw_path or path.with_name(f"{path.name}-raw")
    iterator = iter(records)
    first = next(iterator, None)
    if first is None:
        raise TraceError(f"There is no sequence to write to {path}.")
    _sweep(path)
    if first.raw is None:
        with Packer(path) as packer:
            for record in _with_raw(False, first, iterator):
                packer.add(record, record.observed)
            return _complete(path, manifest, packer)
    raw = _claim(raw_path, manifest.model_copy(update={"policy": "raw", "temperature": 1.0}))
    _sweep(raw_path)
    with Packer(path) as packer, Packer(raw_path) as raw_packer:
        for record in _with_raw(True, first, iterator):
            packer.add(record, record.observed)
            raw_packer.add(record, record.raw)
        _complete(raw_path, raw, raw_packer)
        return _complete(path, manifest, packer)


def _sweep(path: Path) -> None:
    """Remove what a killed run was just writing."""
    for file in path.glob(".*.tmp"):
        file.unlink()


def _with_raw(expected: bool, first: SequenceRecord, rest: Iterator[SequenceRecord]) -> Iterator[SequenceRecord]:
    yield first
    for record in rest:
        if (record.raw is not None) != expected:
            raise TraceError(f"Sequence {record.sequence_id} and {first.sequence_id}: only one has a raw view.")
        yield record


def _complete(path: Path, manifest: Manifest, packer: Packer) -> Manifest:
    counts, files = packer.close()
    manifest = manifest.model_copy(update={"counts": counts, "files": files, "complete": True})
    write_atomic(path / MANIFEST, manifest.to_json().encode())
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return manifest


def _read_part(path: Path) -> SequenceRecord:
    from safetensors import SafetensorError

    try:
        return read_part(path)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise TraceError(f"{path} cannot be read: {error}.", hint=f"delete this file, then {RESUME}") from error


def _identity(manifest: Manifest) -> dict[str, Any]:
    return manifest.model_dump(mode="json", exclude=set(OUTCOME))


def _differences(old: dict[str, Any], new: dict[str, Any], within: str = "") -> list[str]:
    """Where two manifests contradict each other. A fact that one of them does not know yet is no contradiction."""
    found = []
    for key in sorted(old.keys() | new.keys()):
        name, a, b = within + key, old.get(key), new.get(key)
        if name.split(".")[0] in FACTS and (_unknown(a) or _unknown(b)):
            continue
        if isinstance(a, dict) and isinstance(b, dict):
            found += _differences(a, b, name + ".")
        elif a != b:
            found.append(f"{name} is {a!r} there and {b!r} here")
    return found


def _merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    result = dict(old)
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(old.get(key), dict):
            result[key] = _merged(old[key], value)
        elif not _unknown(value):
            result[key] = value
    return result


def _unknown(value: Any) -> bool:
    return value is None or value in ({}, [])
