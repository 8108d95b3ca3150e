"""A client attached to a container's standard streams, possibly before the container has started."""

import asyncio
import contextlib

from bennu.runtime import AttachStream


class Attachment:
    """A client's connection, made at once when the container runs, else by the next start before its process acts.

    It lives as long as that run: `read` answers None at the end of the container's output.
    """

    def __init__(self) -> None:
        self._stream: asyncio.Future[AttachStream | None] = asyncio.get_running_loop().create_future()

    @property
    def connected(self) -> bool:
        return self._stream.done()

    def connect(self, stream: AttachStream | None) -> None:
        """Give it the streams of the run; None: there will be no run (the container was removed)."""
        if self._stream.done():
            if stream is not None:
                stream.close()
            return
        self._stream.set_result(stream)

    async def read(self) -> tuple[int, bytes] | None:
        """Read the next (stream, bytes); stream 1 is stdout (or the terminal), 2 stderr. None: the output has ended."""
        stream = await asyncio.shield(self._stream)
        return None if stream is None else await stream.read()

    async def write(self, data: bytes) -> None:
        """Write to the container's stdin, waiting for the start. Raises: OSError when the container is gone."""
        stream = await asyncio.shield(self._stream)
        if stream is not None:
            await stream.write(data)

    async def close_stdin(self) -> None:
        stream = await asyncio.shield(self._stream)
        if stream is not None:
            with contextlib.suppress(OSError):
                await stream.close_stdin()

    def close(self) -> None:
        """Release the stream, whether connected or not. Idempotent; the container does not notice."""
        if not self._stream.done():
            self._stream.set_result(None)
        else:
            stream = self._stream.result()
            if stream is not None:
                stream.close()
