"""Read a log on all cores: parts in chunks, a process each, and their statistics merged in the order of the log.

The chunks depend on the log alone, so one process and many give the same figures to the last bit.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from ..errors import EngineError
from ..logs.reading import Log
from ..logs.source import Part
from ..supervisor import end_with
from .settings import AnalysisSettings
from .statistics import LogStatistics

CHUNK_BYTES = 64 * 2**20
Chunk = list[tuple[int, Part]]
"""Parts of a log, each with the number of its file."""
OnRows = Callable[[int], None]


def statistics_of(log: Log, settings: AnalysisSettings, *, processes: int, on_tokens: OnRows) -> LogStatistics:
    """The statistics of a whole log. `on_tokens` is told how many tokens a chunk had.

    Raises what reading a part raises, and `EngineError` when a process dies.
    """
    chunks = list(chunks_of(log.parts()))
    statistics = LogStatistics(settings)
    for found in _mapped(log, settings, chunks, min(processes, len(chunks))):
        on_tokens(found.pair.tokens)
        statistics.merge(found)
    return statistics


def chunks_of(parts: Iterable[Part]) -> Iterator[Chunk]:
    """Consecutive parts of about `CHUNK_BYTES`."""
    parts = list(parts)
    share = _bytes_of_parts(parts)
    files: dict[Path, int] = {}
    chunk: Chunk = []
    size = 0.0
    for part in parts:
        if chunk and size + share[part.path] > CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0.0
        chunk.append((files.setdefault(part.path, len(files)), part))
        size += share[part.path]
    if chunk:
        yield chunk


def _bytes_of_parts(parts: list[Part]) -> dict[Path, float]:
    """How large a part of each file is, about: its parts share it equally."""
    count: dict[Path, int] = {}
    for part in parts:
        count[part.path] = count.get(part.path, 0) + 1
    return {path: path.stat().st_size / parts_of_it for path, parts_of_it in count.items()}


def _begin(parent: int) -> None:
    """What a forked process does first: signals are its parent's to handle, which it does not outlive."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    end_with(parent)


def read_chunk(log: Log, settings: AnalysisSettings, chunk: Chunk) -> LogStatistics:
    """The statistics of some parts: what one process, or one task of a cluster, does."""
    statistics = LogStatistics(settings)
    for file, part in chunk:
        for batch in log.read(part):
            statistics.add(batch, file)
    return statistics


def _mapped(log: Log, settings: AnalysisSettings, chunks: list[Chunk], processes: int) -> Iterator[LogStatistics]:
    """The statistics of every chunk, in order; a few of them at a time are in memory."""
    if processes <= 1:
        yield from (read_chunk(log, settings, chunk) for chunk in chunks)
        return
    # Forked: nothing is imported again, and a program that calls this needs no guard around its main module.
    pool = ProcessPoolExecutor(
        processes, multiprocessing.get_context("fork"), initializer=_begin, initargs=(os.getpid(),)
    )
    with pool:
        waiting: dict[int, Future[LogStatistics]] = {}
        following = iter(enumerate(chunks))
        try:
            for number in range(len(chunks)):
                for index, chunk in following:
                    waiting[index] = pool.submit(read_chunk, log, settings, chunk)
                    if len(waiting) > processes:
                        break
                yield waiting.pop(number).result()
        except BrokenProcessPool:
            raise EngineError(
                "A process that read the log died, perhaps for want of memory.", hint="give it fewer: --processes 1"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
