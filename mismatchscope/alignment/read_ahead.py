"""Decoding what comes next in a thread of its own, while this one computes: Arrow decodes without Python's lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def read_ahead(batches: Iterator[T], depth: int) -> Iterator[T]:
    """The same batches, up to `depth` of them decoded before they are asked for. Errors come where they belong."""
    end = object()
    with ThreadPoolExecutor(max_workers=1) as reader:  # one: the batches of a file come in order
        pending = deque(reader.submit(next, batches, end) for _ in range(depth))
        try:
            while (batch := pending.popleft().result()) is not end:
                pending.append(reader.submit(next, batches, end))
                yield batch  # type: ignore[misc]  # not `end`
        finally:
            for each in pending:
                each.cancel()
