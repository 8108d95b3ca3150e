"""Work that would hold the event loop up: in portions, or in a thread of its own.

One client's 10,000 tasks are a second of work; between two of its portions everybody else is answered. What may never
come to an end (a computation gone wrong, a folder on a server that is gone) has a thread that nobody else waits for.
"""

import asyncio
import contextlib
import contextvars
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, Final, TypeVar

Item = TypeVar("Item")
T = TypeVar("T")

PORTION_S: Final = 0.02


class Pace:
    """Ask it often; it lets the loop go on once the work since the last rest has taken a portion's time."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    async def rest(self) -> None:
        if time.perf_counter() - self._since > PORTION_S:
            await asyncio.sleep(0)
            self._since = time.perf_counter()


async def paced(items: Iterable[Item]) -> AsyncIterator[Item]:
    """Yield the items, with rests between them as the work on them needs. Their source must not change meanwhile."""
    pace = Pace()
    for item in items:
        yield item
        await pace.rest()


def in_thread(work: Callable[[], T]) -> "asyncio.Future[T]":
    """Run the work in a thread of its own that dies with the process: others would miss a thread of a pool.

    It has the caller's context, as `asyncio.to_thread` gives it.
    """
    loop, context = asyncio.get_running_loop(), contextvars.copy_context()
    answered: asyncio.Future[T] = loop.create_future()

    def answer(found: T | None, error: BaseException | None) -> None:
        if answered.cancelled():
            return
        if error is not None:
            answered.set_exception(error)
        else:
            answered.set_result(found)  # type: ignore[arg-type]

    def run() -> None:
        found, error = None, None
        try:
            found = context.run(work)
        except BaseException as raised:
            error = raised
        if not loop.is_closed():
            loop.call_soon_threadsafe(answer, found, error)

    threading.Thread(target=run, name="own work", daemon=True).start()
    return answered


async def settle(task: "asyncio.Future[Any]") -> None:
    """Wait until it is done, however often the caller is cancelled meanwhile; what came of it is not told."""
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([task])
    if not task.cancelled():
        task.exception()
