"""Chunks of a log read by a Ray cluster, every node of which sees the log under the same paths."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import socket
from collections.abc import Iterator
from types import ModuleType

from ..errors import EngineError, MismatchScopeError, MissingDependencyError, UsageError
from ..foreign_text import printable
from .mapping import Chunk, Mapper, ReadChunk
from .statistics import LogStatistics

LOCAL = "local"
_RETRIES = 3
_SECONDS = 10.0


def on_ray(address: str) -> Mapper:
    """One task a chunk on the cluster at an address, as in "ray://head:10001"; "auto" is the one that this machine
    belongs to, "local" a new one of this machine's cores alone.

    A task whose worker or node is lost is run again. What a chunk holds is merged once, whoever read it.

    Raises `MissingDependencyError` without Ray, `UsageError` for an address where no cluster is, and `EngineError`
    where a chunk cannot be read even so.
    """

    def mapped(read: ReadChunk, chunks: list[Chunk]) -> Iterator[LogStatistics]:
        ray = _connected(address)
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
                f"A task of the Ray cluster failed: {error.cause!r}.", hint="--debug shows it"
            ) from error
        except RayError as error:
            raise EngineError(
                f"The Ray cluster lost a part of the log {_RETRIES + 1} times: {type(error).__name__}.",
                hint="look at the cluster's logs; without --ray this machine reads it alone",
            ) from error
        finally:
            ray.shutdown()

    return mapped


def _read(read: ReadChunk, chunk: Chunk) -> LogStatistics:
    return read(chunk)


def _connected(address: str) -> ModuleType:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    try:
        import ray
    except ImportError:
        raise MissingDependencyError("ray", "ray", "Reading a log on a cluster") from None
    ours = signal.getsignal(signal.SIGTERM)
    try:
        if address == LOCAL:
            ray.init(
                num_cpus=len(os.sched_getaffinity(0)),
                include_dashboard=False,
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
        else:
            _check_reachable(address)
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"There is no Ray cluster at {printable(address)}: {str(error).splitlines()[0]}.",
            hint="ray start --head starts one; --ray local uses this machine alone",
        ) from None
    finally:
        signal.signal(signal.SIGTERM, ours)  # which Ray replaces
    return ray


def _check_reachable(address: str) -> None:
    """Raise `OSError` where nobody listens: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_SECONDS).close()
