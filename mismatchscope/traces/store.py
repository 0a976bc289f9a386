"""A trace's life: created before its run, filled with parts while the run goes on, packed when it has ended.

A kill at any moment loses nothing that was finished: parts are whole files, packing starts again from them, the
manifest says `complete` only once everything else is on the disk, and the parts go last.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from ..durable import sync_directory, write_atomic
from ..errors import OutputExistsError, TraceError
from ..records import SequenceRecord, finished_parts, read_part
from .identity import earlier_manifest, joined
from .notes import PromptRemarks
from .packing import Packer, disk_full_guard, sha256_of
from .schema import MANIFEST, PARTS, RESUME, Manifest, TraceCounts, read_manifest
from .unfinished import remove_parts, usable_manifest


def create(path: Path, manifest: Manifest) -> Path:
    """Make the directory of a trace, with an incomplete manifest and room for parts.

    A trace of the same run that is already there is resumed, complete or not; facts that only one of the two knows
    are added to it. Call it once the engine has loaded and said what it is, before the first part is written.
    Raises `OutputExistsError` when something else is there, `DiskFullError` when there is no room.
    """
    with disk_full_guard(f"{path} could not be created.", hint="make room, or choose another directory with -o"):
        claimed = _claim(path, manifest)
        if not claimed.complete:
            (path / PARTS).mkdir(exist_ok=True)
    return path


def raw_path_of(path: Path) -> Path:
    """Where the raw view of a trace is: beside it, named with "-raw"."""
    return path.with_name(f"{path.name}-raw")


def beside_path_of(path: Path) -> Path:
    """Where the trace of the policy is that was seen beside that of a trace."""
    return path.with_name(f"{path.name}-beside")


def is_complete(path: Path) -> bool:
    """Whether there is a trace that says so of itself. Raises `TraceError` as `usable_manifest`."""
    manifest = usable_manifest(path)
    return manifest is not None and manifest.complete


def finish(path: Path) -> Manifest:
    """Pack the parts of a run into the trace's files, and complete its manifest.

    Where records carry a second, raw view of the same tokens it becomes a complete trace of its own (see
    `raw_path_of`). So does what another policy says of them (`beside_path_of`), whose manifest is there already.
    Does nothing to a trace that is complete already, and gives the same bytes however often it was killed before.
    Raises `TraceError`, `OutputExistsError` (the raw one), `DiskFullError`; the parts stay until the trace is
    complete.
    """
    manifest = read_manifest(path)
    if not manifest.complete:
        parts = sorted(finished_parts(path / PARTS).items())
        if not parts:
            raise TraceError(f"{path} holds no finished sequence.", hint=RESUME)
        kept = f"{path} could not be packed. Its {len(parts)} finished sequences are kept in {path / PARTS}."
        with disk_full_guard(kept, hint=f"make room, then {RESUME}"):
            manifest = _pack(path, manifest, _records_of(part for _, part in parts))
    remove_parts(path)
    return manifest


def write_records(path: Path, manifest: Manifest, records: Iterable[SequenceRecord]) -> Manifest:
    """Write a whole trace from records in rising order of `sequence_id`, without parts: for logs and tests.

    Raises `OutputExistsError` when a complete trace, or another one, is there; `TraceError`, `DiskFullError`.
    """
    with disk_full_guard(f"{path} could not be written.", hint="make room, then repeat the command"):
        claimed = _claim(path, manifest)
        if claimed.complete:
            raise OutputExistsError(f"{path} holds a complete trace.", hint="choose another directory with -o")
        return _pack(path, claimed, records)


def _claim(path: Path, manifest: Manifest) -> Manifest:
    """Take the directory, or join the same run in it; returns the manifest that now is on the disk."""
    manifest = manifest.model_copy(update={"complete": False, "files": {}, "counts": TraceCounts()})
    earlier = earlier_manifest(path, manifest)
    if earlier is not None:
        if earlier.complete:
            return earlier
        manifest = joined(earlier, manifest)
    if manifest != earlier:
        path.mkdir(parents=True, exist_ok=True)
        sync_directory(path.parent)
        write_atomic(path / MANIFEST, manifest.to_json().encode())
    return manifest


def _pack(path: Path, manifest: Manifest, records: Iterable[SequenceRecord]) -> Manifest:
    remarks = PromptRemarks()
    iterator = remarks.watch(records)
    first = next(iterator, None)
    if first is None:
        raise TraceError(f"There is no sequence to write to {path}.")
    _sweep(path)
    if first.beside is not None:
        return _pack_beside(path, manifest, itertools.chain([first], iterator), remarks)
    if first.raw is None:
        with Packer(path) as packer:
            for record in _with_raw(False, first, iterator):
                packer.add(record, record.observed)
            return _complete(path, manifest, packer, remarks)
    raw_path = raw_path_of(path)
    raw = _claim(raw_path, manifest.model_copy(update={"policy": "raw", "temperature": 1.0}))
    _sweep(raw_path)
    with Packer(path) as packer, Packer(raw_path) as raw_packer:
        for record in _with_raw(True, first, iterator):
            packer.add(record, record.observed)
            assert record.raw is not None, "_with_raw lets no other through"
            raw_packer.add(record, record.raw)
        _complete(raw_path, raw, raw_packer, remarks)
        return _complete(path, manifest, packer, remarks)


def _pack_beside(
    path: Path, manifest: Manifest, records: Iterable[SequenceRecord], remarks: PromptRemarks
) -> Manifest:
    """The other policy first: the trace that has the figures names it by its checksum."""
    other_path = beside_path_of(path)
    other = read_manifest(other_path)
    _sweep(other_path)
    with Packer(path) as packer, Packer(other_path) as other_packer:
        for record in records:
            if record.beside is None:
                raise TraceError(f"Sequence {record.sequence_id} was seen by one policy alone.")
            packer.add(record, record.observed)
            other_packer.add(replace(record, max_abs_logit=record.max_abs_logit_beside), record.beside)
        _complete(other_path, other, other_packer, remarks)
        beside = sha256_of(other_path / MANIFEST)
        return _complete(path, manifest.model_copy(update={"beside": beside}), packer, remarks)


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


def _complete(path: Path, manifest: Manifest, packer: Packer, remarks: PromptRemarks) -> Manifest:
    counts, files = packer.close()
    notes = list(dict.fromkeys([*manifest.notes, *remarks.notes]))  # a run that was killed here noted them once
    manifest = manifest.model_copy(update={"counts": counts, "files": files, "notes": notes, "complete": True})
    write_atomic(path / MANIFEST, manifest.to_json().encode())
    return manifest


def _records_of(parts: Iterable[Path]) -> Iterator[SequenceRecord]:
    for part in parts:
        try:
            yield read_part(part)
        except TraceError as error:
            error.hint = f"{RESUME}: it is then made again"
            raise
