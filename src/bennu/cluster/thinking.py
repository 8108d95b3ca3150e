"""The core's looks, kept from holding the event loop up.

A look is pure, so it may be taken anywhere. Most take a fraction of a millisecond and are taken at once; those that are
or were long are taken in a thread of their own, and the loop goes on beside them. One that does not end is left alone
with its thread: nothing can stop it, and no caller waits for it any longer.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final, TypeVar

from bennu.errors import BennuError
from bennu.pace import in_thread

MANY_TASKS: Final = 300
LONG_S: Final = 0.02
PATIENCE_S: Final = 10.0
T = TypeVar("T")


class TooLong(BennuError):
    """The error of a look that did not come to an end in time."""


class Thinking:
    """The executor of looks, long ones in threads.

    It knows which services are slow and which look is still under way.
    """

    def __init__(self) -> None:
        self._slow: set[str] = set()
        self._under_way: dict[str, asyncio.Future[object]] = {}

    async def think(self, service_id: str, tasks: int, look: Callable[[], T]) -> T:
        """Run `look` and return its answer.

        Raises: TooLong, also at once while an earlier look goes on; what `look` raises.

        What it reads must not change before this returns.
        """
        if service_id in self._under_way:
            raise TooLong("an earlier decision about it has still not come to an end")
        if tasks > MANY_TASKS or service_id in self._slow:
            return await self._beside(service_id, look)
        began = time.perf_counter()
        found = look()
        if time.perf_counter() - began > LONG_S:
            self._slow.add(service_id)
        return found

    def forget(self, service_id: str) -> None:
        self._slow.discard(service_id)

    async def _beside(self, service_id: str, look: Callable[[], T]) -> T:
        answered = in_thread(look)
        done, _ = await asyncio.wait((answered,), timeout=PATIENCE_S)
        if done:
            return answered.result()
        self._under_way[service_id] = answered  # type: ignore[assignment]
        answered.add_done_callback(lambda _: self._under_way.pop(service_id, None))
        raise TooLong(f"a decision about it takes more than {PATIENCE_S:g} s")
