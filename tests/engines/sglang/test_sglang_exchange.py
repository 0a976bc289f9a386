"""The files between the worker and SGLang's scheduler process: requests one way, records and failures the other."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mismatchscope.engines.sglang.exchange import Batch, Exchange, parse_request_id, request_id
from mismatchscope.errors import EngineError, ModelError
from mismatchscope.records import Evidence, Observed, Request, SequenceRecord, Task

IDS = np.array([4, 9, 3, 5, 8], dtype=np.int32)


def record(sequence_id: int, *, raw: bool) -> SequenceRecord:
    seen = Observed(np.zeros(3), full_row_R=np.arange(3), full_logprobs_RV=np.full((3, 5), sequence_id, np.float32))
    tokens = np.arange(3, dtype=np.int32)
    return SequenceRecord(sequence_id, 7, tokens, tokens, "stop", seen, replace(seen) if raw else None)


def test_a_sequence_is_handed_over_once_and_whole(tmp_path: Path) -> None:
    worker, scheduler = Exchange(tmp_path), Exchange(tmp_path)
    requests = [Request(10 + n, n, IDS[:n], response_token_ids=IDS[n:]) for n in (1, 4)]
    work = Batch(4, Task("t", "score", "", "", Evidence("topk", k=3), path="decode"), requests, [4, 1], [2])
    worker.post(work)
    read = scheduler.read(4)
    assert (read.task, read.lengths, read.stop_ids) == (work.task, work.lengths, work.stop_ids)
    for mine, other in zip(work.requests, read.requests, strict=True):
        np.testing.assert_array_equal(mine.response_token_ids, other.response_token_ids)
    assert worker.take(4) == []
    for sequence_id in (12, 3):
        scheduler.put(4, record(sequence_id, raw=sequence_id == 3))
    taken = worker.take(4)
    assert [one.sequence_id for one in taken] == [3, 12] and worker.take(4) == []
    assert (taken[0].raw is None, taken[1].raw is None) == (False, True)
    worker.close(4)
    assert list(tmp_path.iterdir()) == [], "nothing stays behind"
    np.testing.assert_array_equal(taken[0].raw.full_logprobs_RV, np.full((3, 5), 3, np.float32))


def test_a_failure_crosses_over(tmp_path: Path) -> None:
    for number, (error, kind, says) in enumerate(
        [
            (ModelError("no such model", hint="another"), ModelError, "no such model"),
            (ValueError("odd"), EngineError, "ValueError: odd"),
            (OSError(errno.ENOSPC, "No space left on device", "/tmp/x"), OSError, "No space left"),
        ]
    ):
        exchange = Exchange(tmp_path / str(number))
        (tmp_path / str(number)).mkdir()
        assert exchange.failure() is None
        exchange.fail(error)
        exchange.fail(ValueError("and then everything else"))
        failure = exchange.failure()
        assert type(failure) is kind and says in str(failure)
        assert getattr(failure, "hint", None) == getattr(error, "hint", None)
        assert getattr(failure, "errno", None) == getattr(error, "errno", None)


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_request_ids_are_told_from_others(number: int, row: int) -> None:
    assert parse_request_id(request_id(number, row)) == (number, row)
    assert parse_request_id(f"HEALTH_CHECK_{number}-{row}") is None
