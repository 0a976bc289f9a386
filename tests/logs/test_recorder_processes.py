"""Several processes that record into one directory, and one that meets a disk without room."""

from __future__ import annotations

import multiprocessing
import resource
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds

import mismatchscope as ms

FORK = multiprocessing.get_context("fork")


def batch(worker: str, step: int) -> dict[str, Any]:
    logp = np.linspace(-3, -0.1, 50)[None]
    return {
        "token_ids": np.full((1, 50), step),
        "behavior_logprobs": logp,
        "reference_logprobs": logp,
        "step": step,
        "worker": worker,
    }


def test_ranks_share_a_directory(tmp_path: Path) -> None:
    def rank(number: int) -> None:
        with ms.Recorder(tmp_path, rank=number, flush_rows=2, strict=True) as recorder:
            for step in range(5):
                recorder.log(**batch(f"w{number}", step))

    ranks = [
        FORK.Process(target=rank, args=(number,)) for number in (0, 1, 1, 2)
    ]  # two believe that they are rank 1
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    assert [process.exitcode for process in ranks] == [0] * 4
    assert len(list(tmp_path.iterdir())) == 4 * 3
    rows = ds.dataset(tmp_path, format="parquet").to_table().to_pylist()
    found = sorted((row["rank"], row["worker"], row["step"]) for row in rows)
    assert found == sorted((number, f"w{number}", step) for number in (0, 1, 1, 2) for step in range(5))


def test_a_disk_without_room_does_not_stop_the_run_and_loses_nothing(tmp_path: Path) -> None:
    """A limit on the size of a file fails as a full disk does, and can be lifted."""

    def run() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        recorder = ms.Recorder(tmp_path, flush_seconds=0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
        recorder.log(**batch("a", 0))
        recorder.log(**batch("a", 1))
        assert recorder.errors == 2 and not list(tmp_path.iterdir())
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        recorder.close()
        assert recorder.errors == 2 and recorder.lost_rows == 0

    process = FORK.Process(target=run)
    process.start()
    process.join()
    assert process.exitcode == 0
    rows = ds.dataset(tmp_path, format="parquet").to_table().to_pylist()
    assert [row["step"] for row in rows] == [0, 1]
