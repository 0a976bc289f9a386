"""A recorder that is killed again and again: files are whole, what was written stays, nothing is there twice."""

from __future__ import annotations

import multiprocessing
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import mismatchscope as ms

pytestmark = pytest.mark.slow

FLUSH_ROWS, TOKENS, KILLS = 4, 2000, 20
FORK = multiprocessing.get_context("fork")


def record(directory: Path, logged: Any, written: Any) -> None:
    """Log responses without end, numbered on from the process before; response n has n as its tokens."""
    recorder = ms.Recorder(directory, flush_rows=FLUSH_ROWS, flush_seconds=1e9, strict=True)
    logp = np.linspace(-3, -0.1, TOKENS)[None]
    while True:
        number = logged.value
        logged.value += 1
        recorder.log(
            token_ids=np.full((1, TOKENS), number),
            behavior_logprobs=logp,
            reference_logprobs=logp - 0.01,
            step=number,
            prompts=number,
        )
        if recorder.rows % FLUSH_ROWS == 0:
            written.value = number


def test_files_are_whole_and_rows_are_there_once(tmp_path: Path) -> None:
    """With one row a call, a kill loses at most the rows since the last file and the one that was being logged."""
    directory, moments = tmp_path / "log", random.Random(0)
    logged, written = FORK.RawValue("q", 0), FORK.RawValue("q", -1)  # without locks that die held
    safe: set[int] = set()
    largest_loss = 0
    for _ in range(KILLS):
        start, written.value = logged.value, -1
        process = FORK.Process(target=record, args=(directory, logged, written))
        process.start()
        deadline = time.monotonic() + 20
        while written.value < 0 and time.monotonic() < deadline:  # its first file is there: it is at work
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.03))
        process.kill()
        process.join()
        assert written.value >= 0
        safe |= set(range(start, written.value + 1))
        largest_loss = max(largest_loss, logged.value - written.value - 1)
    found: list[int] = []
    for path in directory.glob("*.parquet"):
        for row in pq.read_table(path).to_pylist():
            assert set(row["token_ids"]) == {row["step"]} and len(row["token_ids"]) == TOKENS
            found.append(row["step"])
    assert len(found) == len(set(found))
    assert safe <= set(found) <= set(range(logged.value))
    assert logged.value - len(found) <= KILLS * (FLUSH_ROWS + 1) and largest_loss <= FLUSH_ROWS + 1
    report = ms.analyze(directory)
    assert report.counts.sequences == len(found) and report.counts.tokens == len(found) * TOKENS
