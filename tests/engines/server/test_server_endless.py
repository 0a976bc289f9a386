"""No field of HTTP, sent for ever, keeps a request longer than its deadline on a real clock."""

from __future__ import annotations

import asyncio
import time

import pytest
from evil_server import ENDLESS, EndlessServer

from mismatchscope.engines.server.client import Client
from mismatchscope.errors import EngineError

pytestmark = pytest.mark.slow

TIMEOUT = 0.3


def ask(server: EndlessServer, retries: int) -> float:
    """The seconds that a request took to fail."""

    async def get() -> None:
        client = Client(server.url, timeout=TIMEOUT, retries=retries, key_env="NONE")
        try:
            await client.get("/v1/models")
        finally:
            await client.close()

    began = time.monotonic()
    with pytest.raises(EngineError, match=r"did not answer in time|does not speak HTTP|more than 4 MiB"):
        asyncio.run(get())
    return time.monotonic() - began


@pytest.mark.parametrize("what", ENDLESS)
def test_a_drip_ends_with_the_deadline(what: str) -> None:
    with EndlessServer(what, pause=0.02) as server:
        assert ask(server, retries=0) < TIMEOUT + 1.5


@pytest.mark.parametrize("what", [what for what, (_, unit) in ENDLESS.items() if unit])
def test_a_flood_ends_with_the_deadline_or_before(what: str) -> None:
    """What comes faster than it is read keeps the event loop from anything else."""
    with EndlessServer(what, pause=0, pieces=2000) as server:
        assert ask(server, retries=0) < TIMEOUT + 3


def test_a_request_with_all_its_attempts_ends_after_two_timeouts() -> None:
    with EndlessServer("a chunk's extension", pause=0.02) as server:
        assert ask(server, retries=50) < 2 * TIMEOUT + 1.5
