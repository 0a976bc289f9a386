"""Many requests at the same time, for a caller that is not asynchronous."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from ...records import Request

if TYPE_CHECKING:
    from .client import Client

T = TypeVar("T")


class RequestLoop:
    """The event loop of a client's requests. It runs while a result is awaited, not in between.

    What the caller does in between counts towards the deadlines of the requests under way.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._runner = asyncio.Runner()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine."""
        return self._runner.run(coroutine)

    def as_completed(
        self, ask: Callable[[Request], Awaitable[T]], requests: Sequence[Request], limit: int
    ) -> Iterator[tuple[Request, T]]:
        """Each request with its result, as they finish; at most `limit` under way or not taken yet.

        The first failure ends all that is under way and is raised, behind the results that were there before it.
        Whatever ends the iteration ends what is under way too.
        """
        finished: asyncio.Queue[tuple[Request, T] | Exception] = asyncio.Queue()
        slots = asyncio.Semaphore(limit)

        async def ask_one(request: Request) -> None:
            await slots.acquire()  # released by who takes the result, because that fills memory until then
            finished.put_nowait((request, await ask(request)))

        async def ask_all() -> None:
            try:
                async with asyncio.TaskGroup() as group:
                    for request in requests:
                        group.create_task(ask_one(request))
            except ExceptionGroup as failures:
                finished.put_nowait(failures.exceptions[0])

        batch = self._runner.get_loop().create_task(ask_all())
        try:
            for _ in requests:
                result = self.run(finished.get())
                if isinstance(result, Exception):
                    raise result
                slots.release()
                yield result
        finally:
            if not batch.done():
                batch.cancel()
                self.run(_end_of(batch))

    def close(self) -> None:
        """End what is under way, at once, and close the client. A second call does nothing."""
        if self._client.closed:
            return
        for task in asyncio.all_tasks(self._runner.get_loop()):
            task.cancel()
        self.run(self._client.close())
        self._runner.close()


async def _end_of(task: asyncio.Task[None]) -> None:
    await asyncio.wait({task})
