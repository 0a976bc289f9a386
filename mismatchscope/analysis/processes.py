"""Chunks of a log read by processes of this machine."""

from __future__ import annotations

import ctypes
import itertools
import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from ..errors import EngineError
from ..supervisor import end_with
from .mapping import Chunk, Mapper, ReadChunk, in_this_process
from .statistics import LogStatistics

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_KEPT_BYTES = 2**29


def in_processes(processes: int) -> Mapper:
    """So many processes share the chunks; a single chunk is read in this one.

    Raises `EngineError` when one of them dies.
    """

    def mapped(read: ReadChunk, chunks: list[Chunk]) -> Iterator[LogStatistics]:
        if min(processes, len(chunks)) <= 1:
            yield from in_this_process(read, chunks)
            return
        _import_what_reading_needs()
        # Forked: nothing is imported again, and a program that calls this needs no guard around its main module.
        context = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(processes, context, initializer=_begin, initargs=(os.getpid(),)) as pool:
            try:
                yield from _in_order(pool, read, chunks, ahead=processes + 1)
            except BrokenProcessPool:
                raise EngineError(
                    "A process that read the log died, perhaps for want of memory.",
                    hint="let fewer share it: --processes 1",
                ) from None
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    return mapped


def _import_what_reading_needs() -> None:
    """Once, instead of in every process: pyarrow looks for pandas when it first makes an array."""
    import pyarrow as pa
    import pyarrow.compute
    import pyarrow.parquet

    pa.array([0])


def _in_order(
    pool: ProcessPoolExecutor, read: ReadChunk, chunks: list[Chunk], *, ahead: int
) -> Iterator[LogStatistics]:
    """The statistics of each chunk; no more than `ahead` of them wait in memory for those before them."""
    following = iter(chunks)
    waiting: list[Future[LogStatistics]] = [
        pool.submit(read, chunk) for chunk in itertools.islice(following, ahead)
    ]
    while waiting:
        found = waiting.pop(0).result()
        waiting += [pool.submit(read, chunk) for chunk in itertools.islice(following, 1)]
        yield found


def _begin(parent: int) -> None:
    """What a forked process does first: signals are its parent's to handle, which it does not outlive."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    end_with(parent)
    _keep_memory()


def _keep_memory() -> None:
    """Let the next block have the memory of the last one, instead of pages that are new and have to be zeroed."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc has it
    if mallopt is not None:
        for parameter in (_MMAP_THRESHOLD, _TRIM_THRESHOLD):
            mallopt(parameter, _KEPT_BYTES)
