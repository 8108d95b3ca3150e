"""Limits the DNS queries that are forwarded at the same time: each needs a descriptor, and containers ask at will.

A sandbox has at most 64 under way; a query beyond that waits up to 2 s for a slot. All sandboxes together have 256
slots; when these are taken, the sandbox that has most loses its oldest query to one that has fewer. So no number of
sandboxes that ask without end keeps another one from being answered
(`test_however_many_containers_ask_without_end_another_is_answered`).
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Final

MAX_FORWARDS_PER_SANDBOX: Final = 64
MAX_FORWARDS: Final = 256
MAX_WAITING_PER_SANDBOX: Final = 256
WAIT_S: Final = 2.0


class ForwardQuota:
    """The slots of one sandbox."""

    def __init__(self) -> None:
        self.free = asyncio.Semaphore(MAX_FORWARDS_PER_SANDBOX)
        self.waiting = 0


class ForwardLimiter:
    """The slots of all sandboxes of the daemon."""

    def __init__(self) -> None:
        self._taken: dict[asyncio.Timeout, ForwardQuota] = {}  # oldest first

    @contextlib.asynccontextmanager
    async def slot(self, quota: ForwardQuota) -> AsyncIterator[None]:
        """Hold a slot. Raises: TimeoutError when there is none, or when it is taken away for another sandbox."""
        await _wait(quota)
        try:
            self._make_room(quota)
            async with asyncio.timeout(None) as timeout:
                self._taken[timeout] = quota
                try:
                    yield
                finally:
                    self._taken.pop(timeout, None)
        finally:
            quota.free.release()

    def _make_room(self, quota: ForwardQuota) -> None:
        """Free a slot of the sandbox that has most. Raises: TimeoutError if that is the caller's own."""
        if len(self._taken) < MAX_FORWARDS:
            return
        held = Counter(self._taken.values())
        greediest, most = held.most_common(1)[0]
        if held[quota] >= most:
            raise TimeoutError
        timeout = next(timeout for timeout, owner in self._taken.items() if owner is greediest)
        del self._taken[timeout]
        timeout.reschedule(asyncio.get_running_loop().time())


async def _wait(quota: ForwardQuota) -> None:
    """Wait for one of the sandbox's own slots. Raises: TimeoutError."""
    if quota.waiting >= MAX_WAITING_PER_SANDBOX:
        raise TimeoutError
    quota.waiting += 1
    try:
        async with asyncio.timeout(WAIT_S):
            await quota.free.acquire()
    finally:
        quota.waiting -= 1
