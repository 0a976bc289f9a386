"""Chunks of a log read by a Ray cluster, every node of which sees the log under the same paths."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from ..errors import EngineError, MismatchScopeError
from ..ray_connection import ray_cluster
from .mapping import Chunk, Mapper, ReadChunk
from .statistics import LogStatistics

_RETRIES = 3


def on_ray(address: str) -> Mapper:
    """One task a chunk on the cluster at an address: see `ray_connection.ray_cluster`, and for what it raises.

    A task whose worker or node is lost is run again. What a chunk holds is merged once, whoever read it. Raises
    `EngineError` where a chunk cannot be read even so.
    """

    def mapped(read: ReadChunk, chunks: list[Chunk]) -> Iterator[LogStatistics]:
        with ray_cluster(address, "Reading a log on a cluster") as ray:
            from ray.exceptions import RayError, RayTaskError

            try:
                task, reader = ray.remote(max_retries=_RETRIES, num_cpus=1)(_read), ray.put(read)
                ahead = 2 * int(ray.cluster_resources().get("CPU", 1))
                following = iter(chunks)
                waiting = [task.remote(reader, chunk) for chunk in itertools.islice(following, ahead)]
                while waiting:
                    found = ray.get(waiting.pop(0))
                    waiting += [task.remote(reader, chunk) for chunk in itertools.islice(following, 1)]
                    yield found
            except RayTaskError as error:
                if isinstance(error.cause, MismatchScopeError):
                    raise error.cause from None
                raise EngineError(
                    f"A task of the Ray cluster failed: {error.cause!r}.", hint="see it with --debug"
                ) from error
            except RayError as error:
                raise EngineError(
                    f"The Ray cluster lost a part of the log {_RETRIES + 1} times: {type(error).__name__}.",
                    hint="look at the cluster's logs; without --ray this machine reads it alone",
                ) from error

    return mapped


def _read(read: ReadChunk, chunk: Chunk) -> LogStatistics:
    return read(chunk)
