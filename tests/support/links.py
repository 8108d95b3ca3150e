"""Two ends of a connection that lies in memory, for what speaks over a `Link`."""

import asyncio


class MemoryLink:
    """One end. What is written comes out of the other; a slow reader stops the writer after `limit` bytes."""

    def __init__(self, limit: int = 1 << 20) -> None:
        self.other: MemoryLink = self
        self._limit = limit
        self._data = bytearray()
        self._ended = False
        self._changed = asyncio.Condition()

    async def read(self) -> bytes | None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._data or self._ended)
            data = bytes(self._data)
            self._data.clear()
            self._changed.notify_all()
            return data or None

    async def write(self, data: bytes) -> None:
        other = self.other
        async with other._changed:
            await other._changed.wait_for(lambda: len(other._data) < other._limit or other._ended)
            if other._ended:
                raise ConnectionResetError("the other end is closed")
            other._data += data
            other._changed.notify_all()

    async def close(self) -> None:
        for end in (self, self.other):
            async with end._changed:
                end._ended = True
                end._changed.notify_all()


def link_pair() -> tuple[MemoryLink, MemoryLink]:
    one, two = MemoryLink(), MemoryLink()
    one.other, two.other = two, one
    return one, two
