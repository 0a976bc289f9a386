"""Follow the logs of a run that goes on: what is finished is read once, and the figures are those of all of it.

Finished are the lines of a JSONL file up to its last newline, the files of a step that its trainer has marked, the
dumps that one step is made of when all are there, and any other file that has not changed for a while. A file that
was read and is then written anew, as by a trainer that repeats steps after a crash, is named and not read again:
what it held before stays in the figures.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from ..credentials import masked
from ..errors import NoLogsError, TraceError, UsageError
from ..foreign_text import printable
from ..input_files import open_regular, read_bytes
from ..logs import jsonl
from ..logs.metrics_file import read_metrics
from ..logs.reading import Log, open_logs
from ..logs.source import Part
from ..reports.document import Report
from . import checkpoint
from .base_files import are_base_files
from .checkpoint import FileProgress, Progress, UnusableCheckpointError
from .mapping import Chunk, ChunkReader, Mapper, chunks_of
from .report import report_of
from .settings import AnalysisSettings
from .statistics import LogStatistics

SETTLED_S: Final = 10.0
"""A file that is not of lines is finished when it has not changed for so long."""
_FINGERPRINT_BYTES: Final = 4096
_MAP_BYTES: Final = 2**20


class Follower:
    """One run's logs, looked at again and again."""

    def __init__(
        self,
        paths: Sequence[Path],
        settings: AnalysisSettings,
        mapper: Mapper,
        checkpoint_file: Path,
        *,
        format: str | None = None,
        column_map: Path | None = None,
        compare_with: Path | None = None,
        command: str = "",
        now: Callable[[], float] = time.time,
    ) -> None:
        self._paths, self._settings, self._mapper, self._now = list(paths), settings, mapper, now
        self._format, self._column_map, self._compare_with = format, column_map, compare_with
        self._command = command
        self._checkpoint = checkpoint_file
        self._log: Log | None = None
        self._started = time.monotonic()
        self.progress = Progress(LogStatistics(settings))

    def resume(self) -> str | None:
        """Go on from the checkpoint; None where that was done or there is none, else a clause that says why not."""
        try:
            self.progress = checkpoint.load(self._checkpoint, self._identity())
        except FileNotFoundError:
            return None
        except UnusableCheckpointError as error:
            return str(error)
        return None

    def save(self) -> None:
        """Write the checkpoint; raises `OSError`."""
        checkpoint.save(self._checkpoint, self.progress, self._identity())

    def look(self, *, last: bool = False) -> int:
        """Read what is finished since the last look; return how many tokens that was. At the last look a step is
        read as it is, whatever files of it may be missing."""
        try:
            self._log = open_logs(self._paths, self._format, self._column_map, growing=True)
        except NoLogsError:
            return 0
        if are_base_files(self._log):
            raise UsageError(
                "Files of llama.cpp are of one moment: there is nothing to follow.", hint="leave --follow out"
            )
        parts, read = self._finished(self._log, last)
        if not parts:
            return 0
        statistics = self._statistics(self._log, parts, read)
        self.progress.statistics.merge(statistics)
        self.progress.files |= read
        return statistics.pair.tokens

    def report(self) -> Report | None:
        """The report of all that was read; None where no token of it counts yet."""
        if self._log is None or not self.progress.statistics.pair.tokens:
            return None
        remarks = (*self._log.remarks, *self.progress.remarks)
        log = Log(self._log.format, self._log.files, remarks, self._log.columns)
        return report_of(
            log,
            self.progress.statistics,
            self._settings,
            logged=None if self._compare_with is None else read_metrics(self._compare_with),
            command=masked(self._command),
            started=self._started,
        )

    def _identity(self) -> dict[str, Any]:
        column_map = None if self._column_map is None else read_bytes(self._column_map, _MAP_BYTES)
        return {
            "paths": [str(path.absolute()) for path in self._paths],
            "settings": asdict(self._settings),
            "format": self._format,
            "column_map": None if column_map is None else hashlib.sha256(column_map).hexdigest(),
        }

    def _finished(self, log: Log, last: bool) -> tuple[list[Part], dict[str, FileProgress]]:
        """The parts that are to be read now, and how far their files are read afterwards."""
        parts: list[Part] = []
        read: dict[str, FileProgress] = {}
        whole = [path for path in log.files if not _grows(log, path)]
        for path in log.files:
            known = self.progress.files.get(str(path))
            if self._is_rewritten(path, known):
                continue
            if _grows(log, path):
                start = known.read if known else 0
                end = jsonl.whole_lines(path, start)
                if end > start:
                    parts += jsonl.parts_of(path, start, end)
                    read[str(path)] = _progress_of(path, end)
            elif known is None and self._now() - path.stat().st_mtime > SETTLED_S:
                read[str(path)] = _progress_of(path, path.stat().st_size)
        new = {path for path in whole if str(path) in read}
        of_whole = self._joined_parts(log, whole, new, last) if log.format.parts_of_files else self._parts(log, new)
        of_parts = {path for part in of_whole for path in (part.path, *part.joined)}
        read = {name: progress for name, progress in read.items() if Path(name) not in new - of_parts}
        return parts + of_whole, read

    def _parts(self, log: Log, new: set[Path]) -> list[Part]:
        """The parts of new files. One that cannot be cut up is named, and tried again at the next look."""
        parts: list[Part] = []
        for path in log.files:
            if path in new:
                try:
                    parts += log.with_files([path]).parts()
                except TraceError as error:
                    self._remark(error.message)
        return parts

    def _joined_parts(self, log: Log, whole: list[Path], new: set[Path], last: bool) -> list[Part]:
        """Parts of several files, of which the first is new and all are settled. Those that further files may be
        joined to wait for them."""
        parts = log.with_files(whole).parts() if new else []
        finished = parts if last or log.format.finished_parts is None else log.format.finished_parts(parts)
        for part in parts:
            if part.path not in new and new.intersection(part.joined):
                first = printable(str(min(new.intersection(part.joined))))
                self._remark(f"{first} came after the rest of its step had been read, and is not read.")
        there = {path for path in whole if path in new or str(path) in self.progress.files}
        return [part for part in finished if part.path in new and there.issuperset(part.joined)]

    def _is_rewritten(self, path: Path, known: FileProgress | None) -> bool:
        if known is None or path.stat().st_mtime_ns == known.modified_ns:
            return False
        if path.stat().st_size >= known.read and _digest_before(path, known.read) == known.before:
            return False
        self._remark(f"{printable(str(path))} was written anew after it was read; what is in it now is not read.")
        return True

    def _statistics(self, log: Log, parts: list[Part], read: dict[str, FileProgress]) -> LogStatistics:
        """What these parts hold. A file that cannot be read is named, and tried again at the next look."""
        numbers = self.progress.numbers
        for part in parts:
            numbers.setdefault(str(part.path), len(numbers))
        chunks = [[(numbers[str(part.path)], part) for _, part in chunk] for chunk in chunks_of(parts)]
        reader = ChunkReader(log, self._settings)
        total = LogStatistics(self._settings)
        try:
            for found in self._mapper(reader, chunks):
                total.merge(found)
            return total
        except TraceError:
            total = LogStatistics(self._settings)
        for path in dict.fromkeys(part.path for part in parts):
            own: Chunk = [(numbers[str(path)], part) for part in parts if part.path == path]
            try:
                total.merge(reader(own))
            except TraceError as error:
                self._remark(error.message)
                read.pop(str(path), None)
        return total

    def _remark(self, remark: str) -> None:
        if remark not in self.progress.remarks:
            self.progress.remarks.append(remark)


def _grows(log: Log, path: Path) -> bool:
    return log.format.grows and path.suffix == ".jsonl"


def _progress_of(path: Path, end: int) -> FileProgress:
    return FileProgress(end, path.stat().st_mtime_ns, _digest_before(path, end))


def _digest_before(path: Path, end: int) -> bytes:
    """Of the last bytes before a place."""
    start = max(0, end - _FINGERPRINT_BYTES)
    with open_regular(path) as file:
        file.seek(start)
        return hashlib.sha256(file.read(end - start)).digest()
