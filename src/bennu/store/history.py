"""The last transactions, kept in memory for those who watch.

Law: whoever follows from a revision gets every later transaction whole, in order and once, or is told that it is
compacted. Nobody is waited for: a follower reads when it can, and what is kept is bounded.
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Final

from bennu.store.base import Changes, Compacted

KEEP: Final = 1024  # transactions
KEEP_BYTES: Final = 4 << 20  # of values; the newest transaction is kept whatever its size


@dataclass(frozen=True, slots=True, eq=False)
class _Follower:
    prefix: str
    loop: asyncio.AbstractEventLoop
    arrived: asyncio.Event


class History:
    """Written by one thread, followed in any event loop."""

    def __init__(self, revision: int) -> None:
        self._lock = threading.Lock()
        self._kept: deque[Changes] = deque()
        self._bytes = 0
        self._floor = revision  # everything later is kept
        self._followers: set[_Follower] = set()

    def add(self, batch: Sequence[Changes]) -> None:
        """Add transactions that are on disk, in order."""
        with self._lock:
            for changes in batch:
                self._kept.append(changes)
                self._bytes += _size(changes)
            while len(self._kept) > 1 and (len(self._kept) > KEEP or self._bytes > KEEP_BYTES):
                oldest = self._kept.popleft()
                self._bytes -= _size(oldest)
                self._floor = oldest.revision
            woken = [
                follower
                for follower in self._followers
                if any(key.startswith(follower.prefix) for changes in batch for key in changes.values)
            ]
        for follower in woken:
            follower.loop.call_soon_threadsafe(follower.arrived.set)

    async def follow(self, prefix: str, after: int) -> AsyncGenerator[Changes, None]:
        """See `Store.watch`."""
        follower = _Follower(prefix, asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._followers.add(follower)
        try:
            while True:
                follower.arrived.clear()
                for changes in self._after(after):
                    after = changes.revision
                    touched = {key: value for key, value in changes.values.items() if key.startswith(prefix)}
                    if touched:
                        yield Changes(changes.revision, touched)
                await follower.arrived.wait()
        finally:
            with self._lock:
                self._followers.discard(follower)

    def _after(self, revision: int) -> list[Changes]:
        later: list[Changes] = []
        with self._lock:
            if revision < self._floor:
                raise Compacted(f"what followed revision {revision} is not kept any more")
            for changes in reversed(self._kept):
                if changes.revision <= revision:
                    break
                later.append(changes)
        return later[::-1]


def _size(changes: Changes) -> int:
    return sum(len(value) for value in changes.values.values() if value is not None)
