"""Read a log in chunks, wherever they are read, and merge their statistics in the order of the log.

The chunks depend on the log alone, so one process, many and a cluster give the same figures to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ..logs.reading import Log
from ..logs.source import Part
from .joined_batches import joined
from .settings import AnalysisSettings
from .statistics import LogStatistics

CHUNK_BYTES = 32 * 2**20

Chunk = list[tuple[int, Part]]
"""Parts of a log, each with the number of its file."""

ReadChunk = Callable[[Chunk], LogStatistics]
Mapper = Callable[[ReadChunk, list[Chunk]], Iterator[LogStatistics]]
"""Calls the function for every chunk and hands on what it returns, in order."""


def statistics_of(
    log: Log, settings: AnalysisSettings, mapper: Mapper, on_tokens: Callable[[int], None]
) -> LogStatistics:
    """The statistics of a whole log. `on_tokens` is told how many tokens a chunk had.

    Raises what reading a part raises, and what the mapper does.
    """
    statistics = LogStatistics(settings)
    for found in mapper(ChunkReader(log, settings), list(chunks_of(log.parts()))):
        on_tokens(found.pair.tokens)
        statistics.merge(found)
    return statistics


class ChunkReader:
    """Reads chunks of one log; it goes to other processes as a whole."""

    def __init__(self, log: Log, settings: AnalysisSettings) -> None:
        self._log, self._settings = log, settings

    def __call__(self, chunk: Chunk) -> LogStatistics:
        statistics = LogStatistics(self._settings)
        read = ((file, batch) for file, part in chunk for batch in self._log.read(part))
        for file, batch in joined(read):
            statistics.add(batch, file)
        return statistics


def in_this_process(read: ReadChunk, chunks: list[Chunk]) -> Iterator[LogStatistics]:
    return map(read, chunks)


def chunks_of(parts: Iterable[Part]) -> Iterator[Chunk]:
    """Consecutive parts of about `CHUNK_BYTES`."""
    parts = list(parts)
    share = _bytes_of_parts(parts)
    chunk: Chunk = []
    size = 0.0
    for file, part in numbered(parts):
        if chunk and size + share[part.path] > CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0.0
        chunk.append((file, part))
        size += share[part.path]
    if chunk:
        yield chunk


def numbered(parts: Iterable[Part]) -> Iterator[tuple[int, Part]]:
    """Each part with the number of its file, in the order in which the files come."""
    files: dict[Path, int] = {}
    for part in parts:
        yield files.setdefault(part.path, len(files)), part


def _bytes_of_parts(parts: list[Part]) -> dict[Path, float]:
    """How large a part of each file is, about: its parts share it equally."""
    count: dict[Path, int] = {}
    for part in parts:
        count[part.path] = count.get(part.path, 0) + 1
    return {path: path.stat().st_size / parts_of_it for path, parts_of_it in count.items()}
