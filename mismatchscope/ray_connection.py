"""A connection to a Ray cluster: made or refused quickly, and nothing of the program's own changes."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from .errors import MissingDependencyError, UsageError
from .foreign_text import printable

LOCAL = "local"
_SECONDS = 10.0


@contextmanager
def ray_cluster(address: str, purpose: str) -> Iterator[ModuleType]:
    """The module `ray`, connected to the cluster at an address, as in "ray://head:10001"; "auto" is the one that
    this machine belongs to, "local" a new one of this machine alone, which ends with the context.

    `purpose` begins the sentence that says that Ray is missing. Raises `MissingDependencyError` without Ray, and
    `UsageError` for an address where no cluster is.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    try:
        import ray
    except ImportError:
        raise MissingDependencyError("ray", "ray", purpose) from None
    ours = signal.getsignal(signal.SIGTERM)
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        if address == LOCAL:
            ray.init(num_cpus=len(os.sched_getaffinity(0)), include_dashboard=False, **options)
        else:
            _check_reachable(address)
            ray.init(address=address, **options)
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"There is no Ray cluster at {printable(address)}: {str(error).splitlines()[0]}.",
            hint="ray start --head starts one; --ray local uses this machine alone",
        ) from None
    finally:
        signal.signal(signal.SIGTERM, ours)  # which Ray replaces
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise `OSError` where nobody listens: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_SECONDS).close()
