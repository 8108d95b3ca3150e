"""Long work on the event loop, in portions: whoever else waits has his turn in between.

One client's 10,000 tasks are a second of work; between two of its portions everybody else is answered.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import Final, TypeVar

Item = TypeVar("Item")

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
    """The items, with rests between them as the work on them needs. Nothing may change what they come from."""
    pace = Pace()
    for item in items:
        yield item
        await pace.rest()
