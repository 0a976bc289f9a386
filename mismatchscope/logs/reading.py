"""Open the logs of a run: which format they are, how they are cut into parts, and the rows of a part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import UsageError
from .detect import find_logs
from .refusals import readable
from .registry import log_format, log_formats
from .row_numbers import numbered
from .source import ColumnOrigin, LogBatch, LogFormat, Part


@dataclass(frozen=True)
class Log:
    """Files of one format, in the order in which they are read. It can be pickled: parts are read anywhere."""

    format: LogFormat
    files: tuple[Path, ...]
    remarks: tuple[str, ...] = ()
    """What a person should know of the files: those left out, those that are there twice."""
    columns: tuple[ColumnOrigin, ...] = field(default=())
    """Which policy each column of log-probs is."""

    def parts(self) -> list[Part]:
        """The log in pieces, each of which one process reads at once; raises `TraceError` for a broken file."""
        if self.format.parts_of_files is not None:
            return self.format.parts_of_files(list(self.files))
        parts: list[Part] = []
        for path in self.files:
            with readable(path):
                parts += self.format.parts(path)
        return parts

    def with_files(self, files: Sequence[Path]) -> Log:
        """The same of other files."""
        return replace(self, files=tuple(files))

    def read(self, part: Part) -> Iterator[LogBatch]:
        """The rows of a part, some thousand at a time; raises `TraceError` for what cannot be read."""
        with readable(part.path):
            yield from numbered(self.format.read(part), part)


def open_logs(
    paths: Sequence[Path], format: str | None = None, column_map: Path | None = None, *, growing: bool = False
) -> Log:
    """The logs that some files are, or some directories hold.

    `format` is a name of `registry.FORMATS`; without one the content decides. `column_map` is a TOML file for the
    format `generic`, see `column_map`. `growing`: whoever writes them is not done. Raises what `find_logs` raises,
    and `ConfigError` for a map that is wrong.
    """
    if not paths:
        raise UsageError("No log is named.", hint="mismatchscope analyze LOGS… -o DIR")
    name = None if format in (None, "auto") else format
    formats = log_formats() if name is None else [log_format(name)]
    if column_map is not None:
        formats = [_mapped(column_map, name)]
    found = find_logs(paths, formats, forced=name is not None, growing=growing)
    return Log(found.format, found.files, found.remarks, found.format.columns)


def _mapped(column_map: Path, name: str | None) -> LogFormat:
    from .column_map import load_column_map
    from .formats.generic import format_of

    if name not in (None, "generic"):
        raise UsageError(
            f"The format {name} says itself what its columns are, and takes no column map.",
            hint="leave --map out, or --format",
        )
    return format_of(load_column_map(column_map))
