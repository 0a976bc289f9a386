"""A log read in this process, in several and on a Ray cluster: the same figures to the last bit, nothing twice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import dying_reader
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dying_reader import DyingOnce
from log_rows import log_batch, sampled_rows

from mismatchscope.analysis import mapping
from mismatchscope.analysis.mapping import Chunk, ChunkReader, Mapper, chunks_of, in_this_process, statistics_of
from mismatchscope.analysis.processes import in_processes
from mismatchscope.analysis.ray_cluster import on_ray
from mismatchscope.analysis.settings import AnalysisSettings
from mismatchscope.analysis.statistics import LogStatistics
from mismatchscope.comparison.context import Context
from mismatchscope.comparison.reduction import reduce_pair
from mismatchscope.errors import EngineError, MissingDependencyError, TraceError, UsageError
from mismatchscope.logs.reading import Log, open_logs

SUPPORT = Path(dying_reader.__file__).parent


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Log:
    """Seven files, a chunk each."""
    monkeypatch.setattr(mapping, "CHUNK_BYTES", 1)
    for file in range(7):
        rows = log_batch(**sampled_rows(30, seed=file)).rows
        pq.write_table(pa.Table.from_batches([rows]), tmp_path / f"{file}.parquet")
    return open_logs([tmp_path])


def figures(log: Log, mapper: Mapper) -> tuple[object, ...]:
    seen: list[int] = []
    statistics = statistics_of(log, AnalysisSettings(), mapper, seen.append)
    assert sum(seen) == statistics.pair.tokens
    found = reduce_pair(statistics.pair, Context())
    return found.alpha, found.token, found.sequence, statistics.rows, statistics.native_metrics.results(["verl"])


def dying_once(mapper: Mapper, marker: Path, chunk: int = 3) -> Mapper:
    def mapped(read: ChunkReader, chunks: list[Chunk]) -> Iterator[LogStatistics]:
        return mapper(DyingOnce(read, marker, chunk), chunks)

    return mapped


def test_chunks_hold_every_part_once_and_number_the_files(log: Log) -> None:
    chunks = list(chunks_of(log.parts()))
    assert [file for chunk in chunks for file, _ in chunk] == list(range(7))
    assert [part for chunk in chunks for _, part in chunk] == log.parts()


def test_small_files_share_a_chunk(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping, "CHUNK_BYTES", 2**20)
    assert len(list(chunks_of(log.parts()))) == 1


def test_processes_give_the_same_figures(log: Log) -> None:
    assert figures(log, in_processes(2)) == figures(log, in_this_process)


def test_a_process_that_dies_is_said(log: Log, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="A process that read the log died"):
        figures(log, dying_once(in_processes(2), tmp_path / "died"))


def test_a_broken_file_is_said_from_a_process_too(log: Log) -> None:
    data = bytearray(log.files[2].read_bytes())
    data[40:400] = bytes(360)
    log.files[2].write_bytes(data)
    with pytest.raises(TraceError, match=r"2\.parquet"):
        figures(log, in_processes(2))


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_a_cluster_gives_the_same_figures_though_a_worker_is_killed(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(SUPPORT), str(SUPPORT.parents[1])]))  # for the workers
    expected = figures(log, in_this_process)
    assert figures(log, dying_once(on_ray("local"), tmp_path / "died")) == expected
    assert (tmp_path / "died").exists()


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_an_address_without_a_cluster_is_refused(log: Log) -> None:
    pytest.importorskip("ray")
    with pytest.raises(UsageError, match=r"no Ray cluster at 127\.0\.0\.1:9"):
        figures(log, on_ray("127.0.0.1:9"))


def test_without_ray_the_command_that_installs_it_is_said(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(MissingDependencyError, match="Reading a log on a cluster needs the package ray") as caught:
        figures(log, on_ray("local"))
    assert "mismatchscope[ray]" in str(caught.value.hint)
