"""Waits for non-blocking descriptors on the event loop, and writes to them."""

import asyncio
import os


async def wait_readable(descriptor: int) -> None:
    """Return once a read would not block."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(descriptor, _resolve, ready)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)


def _resolve(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


class DescriptorWriter:
    """Writes to a non-blocking pipe or packet socket, in pieces of at most `piece_bytes`."""

    def __init__(self, descriptor: int, piece_bytes: int, *, owned: bool) -> None:
        self._descriptor = descriptor
        self._piece_bytes = piece_bytes
        self._owned = owned
        self._ready: asyncio.Future[None] | None = None

    async def write(self, data: bytes) -> None:
        """Write all of it; waits while the other side is full. One at a time.

        Raises: OSError when there is no other side.
        """
        rest = memoryview(data)
        while rest:
            if self._descriptor < 0:
                raise BrokenPipeError("closed")
            try:
                rest = rest[os.write(self._descriptor, rest[: self._piece_bytes]) :]
            except BlockingIOError:
                await self._wait_ready()

    async def _wait_ready(self) -> None:
        loop = asyncio.get_running_loop()
        descriptor = self._descriptor
        self._ready = loop.create_future()
        loop.add_writer(descriptor, _resolve, self._ready)
        try:
            await self._ready
        finally:
            self._ready = None
            if self._descriptor == descriptor:
                loop.remove_writer(descriptor)

    def close(self) -> None:
        """Close it. Idempotent; a write under way fails."""
        if self._descriptor < 0:
            return
        descriptor, self._descriptor = self._descriptor, -1
        if self._ready is not None:
            self._ready.get_loop().remove_writer(descriptor)
            _resolve(self._ready)
        if self._owned:
            os.close(descriptor)
