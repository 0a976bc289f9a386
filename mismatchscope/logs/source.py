"""What an importer is: it says which files it knows, cuts them into parts, and reads a part into rows.

A part is the unit of work that processes and clusters share out: a file, a row group of a Parquet file, a range of
bytes of a JSONL file. Reading the same part again gives the same rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .columns import PolicyRole

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class ColumnOrigin:
    """Which policy a column of log-probs is, in the trainer's own words, and how sure that is.

    `settled` is False where the trainer writes one of two policies under this name and the data must say which.
    """

    column: str
    source: str
    policy: PolicyRole
    settled: bool = True
    remark: str = ""


@dataclass(frozen=True)
class Part:
    """A piece of a log that is read at once: rows `start` up to `stop` of a file, in the format's own unit
    (row groups, bytes). `stop` None is the end of the file. `joined` are other files that its rows are made of: the
    trainer's dump beside the sampler's, the files of the other ranks."""

    path: Path
    start: int = 0
    stop: int | None = None
    joined: tuple[Path, ...] = ()


@dataclass(frozen=True, eq=False)
class LogBatch:
    """Some rows of a log in the form of `columns`, and what of the part could not be read.

    `rejected` counts rows by reason: no log-prob, lists of other lengths, a row that is no JSON. `remarks` are
    things that a person should know: a truncated last line, a mask that was already reduced.
    """

    rows: pa.RecordBatch
    part: Part
    rejected: Counter[str] = field(default_factory=Counter)
    remarks: tuple[str, ...] = ()


def _unknown(path: Path) -> str | None:
    return None


@dataclass(frozen=True)
class LogFormat:
    """A trainer's log format.

    `recognises` decides by a file's name and first bytes; `parts` cuts a file up without reading it all; `read`
    yields its rows, some thousand at a time. `columns` says which policy each column of log-probs is; `looks_for`
    is what the format's files are called, for a person. Where a row is made of several files, `parts_of_files` cuts
    up all files of a log at once; it is called in place of `parts`.
    """

    name: str
    looks_for: str
    recognises: Callable[[Path, bytes], bool]
    parts: Callable[[Path], list[Part]]
    read: Callable[[Part], Iterator[LogBatch]]
    columns: tuple[ColumnOrigin, ...]
    selects: str | None = None
    """What the format's masks have already left out, so that what is left is a selection; None where nothing."""
    parts_of_files: Callable[[list[Path]], list[Part]] | None = None
    grows: bool = False
    """Whether parts of a .jsonl file are any ranges of whole lines, so that they can be read while it grows."""
    finished_parts: Callable[[list[Part]], list[Part]] | None = None
    """Of all parts of a log that is being written, those that no further file will be joined to. None where a part
    is one file."""
    also_reads: frozenset[str] = frozenset()
    """Other formats whose files it reads too, where a log has both."""
    compares_files: bool = False
    """Whether a log is two files that are held against each other, of which equal ones are two."""
    holds: Callable[[Path], str | None] = _unknown
    """Which piece of a run a file holds that no other file of it does, in words; None where nothing says it."""
    unfinished: Callable[[Path], str | None] = _unknown
    """Why a file is still being written, as a clause that begins with its subject; None where it is finished."""
    refused: Callable[[Path], str | None] = _unknown
    """Why a file that `recognises` does not know, though it is called as those that it does, must not be read, as a
    clause whose subject is the file; None for any other file."""
