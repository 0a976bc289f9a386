"""Reading ahead changes when batches are decoded, and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from mismatchscope.alignment.read_ahead import read_ahead


@pytest.mark.parametrize("depth", [1, 2, 50])
def test_the_batches_come_in_order(depth: int) -> None:
    assert list(read_ahead(iter(range(20)), depth)) == list(range(20))
    assert list(read_ahead(iter([]), depth)) == []


@pytest.mark.parametrize("depth", [1, 4])
def test_an_error_comes_after_what_was_read_before_it(depth: int) -> None:
    def broken() -> Iterator[int]:
        yield from range(3)
        raise OSError("the file ends here")

    seen = []
    with pytest.raises(OSError, match="ends here"):
        for batch in read_ahead(broken(), depth):
            seen.append(batch)
    assert seen == [0, 1, 2]


def test_no_more_is_read_than_its_depth_and_no_thread_is_left() -> None:
    read = []

    def counted() -> Iterator[int]:
        for number in range(100):
            read.append(number)
            yield number

    threads = threading.active_count()
    batches = read_ahead(counted(), 3)
    assert next(batches) == 0
    batches.close()
    assert len(read) <= 4
    assert threading.active_count() == threads
