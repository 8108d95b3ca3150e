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

AT_ONCE_A_SANDBOX: Final = 64
AT_ONCE: Final = 256
WAITING_A_SANDBOX: Final = 256
WAIT_S: Final = 2.0


class Asker:
    """One sandbox."""

    def __init__(self) -> None:
        self.free = asyncio.Semaphore(AT_ONCE_A_SANDBOX)
        self.waiting = 0


class Turns:
    """Those of all sandboxes of the daemon."""

    def __init__(self) -> None:
        self._taken: dict[asyncio.Timeout, Asker] = {}  # oldest first

    @contextlib.asynccontextmanager
    async def take(self, asker: Asker) -> AsyncIterator[None]:
        """Raises: TimeoutError where there is none, or when it had to be given up."""
        await _wait(asker)
        try:
            self._make_room(asker)
            async with asyncio.timeout(None) as turn:
                self._taken[turn] = asker
                try:
                    yield
                finally:
                    self._taken.pop(turn, None)
        finally:
            asker.free.release()

    def _make_room(self, asker: Asker) -> None:
        """Raises: TimeoutError."""
        if len(self._taken) < AT_ONCE:
            return
        held = Counter(self._taken.values())
        greediest, most = held.most_common(1)[0]
        if held[asker] >= most:
            raise TimeoutError
        turn = next(turn for turn, owner in self._taken.items() if owner is greediest)
        del self._taken[turn]
        turn.reschedule(asyncio.get_running_loop().time())


async def _wait(asker: Asker) -> None:
    """Raises: TimeoutError."""
    if asker.waiting >= WAITING_A_SANDBOX:
        raise TimeoutError
    asker.waiting += 1
    try:
        async with asyncio.timeout(WAIT_S):
            await asker.free.acquire()
    finally:
        asker.waiting -= 1
