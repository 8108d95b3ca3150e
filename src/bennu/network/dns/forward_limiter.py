"""Whose questions are being put to other servers: each is a descriptor, and containers ask as often as they like.

A sandbox has so many under way at most; what it asks beyond that waits a little. Of all sandboxes together there are
so many; where these are all taken, the one that has most gives its oldest up to one that has fewer. So no number of
sandboxes that ask without end keeps another from being answered.
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
    """One sandbox."""

    def __init__(self) -> None:
        self.free = asyncio.Semaphore(MAX_FORWARDS_PER_SANDBOX)
        self.waiting = 0


class ForwardLimiter:
    """Those of all sandboxes of the daemon."""

    def __init__(self) -> None:
        self._taken: dict[asyncio.Timeout, ForwardQuota] = {}  # oldest first

    @contextlib.asynccontextmanager
    async def slot(self, quota: ForwardQuota) -> AsyncIterator[None]:
        """Raises: TimeoutError where there is none, or when it had to be given up."""
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
        """Raises: TimeoutError."""
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
    """Raises: TimeoutError."""
    if quota.waiting >= MAX_WAITING_PER_SANDBOX:
        raise TimeoutError
    quota.waiting += 1
    try:
        async with asyncio.timeout(WAIT_S):
            await quota.free.acquire()
    finally:
        quota.waiting -= 1
