"""Files and directories that somebody names -> the files of one log format among them.

A format is decided by content. In a directory, files that no format knows are left out, as are hidden files and
temporary ones, and all of them are counted; a file that is named itself must be a log.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import NoLogsError, TraceError, UsageError
from ..file_errors import file_errors
from ..foreign_text import printable
from ..input_files import check_regular, open_regular, reason
from .refusals import readable
from .repeats import natural_order, repeated_pieces, without_copies
from .source import LogFormat

HEAD_BYTES = 4096
"""How much of a file a format is shown before it decides."""

_TEMPORARY = (".tmp", ".temp", ".part", ".partial", ".incomplete", ".lock", ".swp", "~")


@dataclass(frozen=True)
class FoundFiles:
    """The files of one format, step_9 before step_10, and what was left out and why."""

    format: LogFormat
    files: tuple[Path, ...]
    remarks: tuple[str, ...]


def find_logs(
    paths: Sequence[Path], formats: Sequence[LogFormat], *, forced: bool = False, growing: bool = False
) -> FoundFiles:
    """The log files that some paths are or hold.

    `forced`: a file that is named is of the one format given, and of a directory's files those count that this
    format knows. `growing`: in a directory that is being written to, a file that cannot be read is not finished.

    Raises `NoLogsError` where no log is found, and `UsageError` for a path that is not there or no regular file,
    and where the files are of more than one format; `TraceError` for a file that cannot be read, or is broken.
    """
    named: list[Path] = []
    within: list[Path] = []
    left_out: Counter[str] = Counter()
    with file_errors("The logs cannot be looked for", "check the paths", kind=UsageError):
        for path in paths:
            if path.is_dir():
                within += _files_within(path, left_out)
            else:
                named.append(_checked(path))
        named, within = _without_repeats(named, within)
        found: dict[str, list[Path]] = defaultdict(list)
        for path in named:
            log_format = formats[0] if forced else _format_of(path, formats)
            if log_format is None:
                raise _unknown(path, formats)
            found[log_format.name].append(path)
        unfinished: list[str] = []
        refused: list[str] = []
        for path in within:
            if not path.stat().st_size:
                continue  # a marker, or a rank that had nothing to write
            try:
                log_format = _format_of(path, formats)
            except TraceError:
                if not growing:
                    raise
                left_out["that cannot be read yet"] += 1
                continue
            if log_format is None and (why := _refused(path, formats)):
                refused.append(f"{printable(str(path))} is not read: {why}.")
            elif log_format is None:
                left_out["of another kind"] += 1
            elif why := log_format.unfinished(path):
                unfinished.append(why)
            else:
                found[log_format.name].append(path)
        if not found:
            raise _nothing(paths, formats, _said(left_out, unfinished, refused), named_is_read=bool(unfinished))
        log_format = next((known for known in formats if found.keys() <= {known.name, *known.also_reads}), None)
        if log_format is None:
            raise _mixed(found)
        files = [path for of_format in found.values() for path in of_format]
        files.sort(key=natural_order)
        files, copies = (files, []) if log_format.compares_files else without_copies(files, log_format.holds)
        repeated = repeated_pieces(files, log_format.holds)
    remarks = [*_said(left_out, unfinished, refused), *copies, *repeated]
    return FoundFiles(log_format, tuple(files), tuple(remarks))


def _files_within(directory: Path, left_out: Counter[str]) -> Iterator[Path]:
    """Every regular file below a directory; a link to a file is followed, one to a directory is not."""
    waiting = [directory]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if not entry.name.startswith("."):
                        waiting.append(Path(entry.path))
                elif entry.name.startswith("."):
                    left_out["hidden"] += 1
                elif entry.name.endswith(_TEMPORARY):
                    left_out["temporary"] += 1
                elif entry.is_file():
                    yield Path(entry.path)
                else:
                    left_out["no regular file"] += 1


def _checked(path: Path) -> Path:
    try:
        check_regular(path)
    except OSError as error:
        raise UsageError(f"The log {path} cannot be read: {reason(error)}.", hint="check the path") from None
    return path


def _without_repeats(named: Iterable[Path], within: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Each file once, though it was named twice, or is in a directory that was named too."""
    seen: set[str] = set()
    kept: tuple[list[Path], list[Path]] = ([], [])
    for paths, into in ((named, kept[0]), (within, kept[1])):
        for path in paths:
            real = os.path.realpath(path)
            if real not in seen:
                seen.add(real)
                into.append(path)
    return kept


def _format_of(path: Path, formats: Iterable[LogFormat]) -> LogFormat | None:
    """The first format that knows a file; None for one that is empty."""
    with readable(path):
        with open_regular(path) as file:
            head = file.read(HEAD_BYTES)
        return next((known for known in formats if head and known.recognises(path, head)), None)


def _refused(path: Path, formats: Iterable[LogFormat]) -> str | None:
    """Why a file that no format knows must not be read; None where it is just something else."""
    return next((why for known in formats if (why := known.refused(path))), None)


def _said(left_out: Counter[str], unfinished: Iterable[str], refused: Sequence[str]) -> list[str]:
    """What a person should know of the files that are no part of the log."""
    counted = ", ".join(f"{count:,} {why}" for why, count in sorted(left_out.items()))
    said = [f"Files that were left out: {counted}."] if left_out else []
    if reasons := sorted(set(unfinished)):
        more = f", and {len(reasons) - 1:,} more like it" if len(reasons) > 1 else ""
        said.append(f"Left out, because {printable(reasons[0])}{more}.")
    if refused:
        more = f" Files that are refused likewise: {len(refused) - 1:,}." if len(refused) > 1 else ""
        said.append(min(refused) + more)
    return said


def _looked_for(formats: Iterable[LogFormat]) -> str:
    return "; ".join(f"{known.name}: {known.looks_for}" for known in formats)


def _unknown(path: Path, formats: Sequence[LogFormat]) -> UsageError:
    if why := _refused(path, formats):
        return UsageError(f"{path} is no log: {why}.", hint="leave the file out, and see where it comes from")
    return UsageError(
        f"{path} is no log of a known format. Known are {_looked_for(formats)}.",
        hint="--format NAME reads it as one; --map FILE says what the columns of any other table are",
    )


def _mixed(found: dict[str, list[Path]]) -> UsageError:
    (first, of_first), (second, of_second) = list(found.items())[:2]
    return UsageError(
        f"These are logs of several formats: {of_first[0]} is {first}, {of_second[0]} is {second}.",
        hint=f"name the files of one of them, or choose: --format {first}",
    )


def _nothing(
    paths: Iterable[Path], formats: Sequence[LogFormat], said: Iterable[str], *, named_is_read: bool
) -> NoLogsError:
    places = ", ".join(str(path) for path in paths)
    return NoLogsError(
        " ".join([f"There is no log in {places}. Looked for were {_looked_for(formats)}.", *said]),
        hint="name the files themselves" if named_is_read else "name the directory that the trainer wrote to",
    )
