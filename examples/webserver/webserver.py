"""Answers every request with the version it was started as. Dies of SIGTERM at once, as most programs do.

A connection that the client wants kept is kept. `GET /slow` is answered after three seconds.
"""

import asyncio
import os
import signal
import sys

PORT = 8000
SLOW_S = 3
VERSION = sys.argv[1] if len(sys.argv) > 1 else "1"
BODY = f"You are using version {VERSION}\n".encode()
HEAD = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len(BODY)}\r\n"
KEPT, LAST = (f"{HEAD}Connection: {word}\r\n\r\n".encode() + BODY for word in ("keep-alive", "close"))


class Connection(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._unread = b""

    def data_received(self, data: bytes) -> None:
        self._unread += data
        while b"\r\n\r\n" in self._unread:
            head, self._unread = self._unread.split(b"\r\n\r\n", 1)
            is_last = b"connection: close" in head.lower() or head.partition(b"\r\n")[0].endswith(b"HTTP/1.0")
            if head.startswith(b"GET /slow"):
                asyncio.get_running_loop().call_later(SLOW_S, self._answer, is_last)
            else:
                self._answer(is_last)

    def _answer(self, is_last: bool) -> None:
        self._transport.write(LAST if is_last else KEPT)
        if is_last:
            self._transport.close()


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Connection, "", PORT, backlog=1024)
    print(f"version {VERSION} listening on port {PORT}", flush=True)
    await server.serve_forever()


# As PID 1 it would not die of SIGTERM without a handler; and it does not wait for what it is answering.
signal.signal(signal.SIGTERM, lambda number, frame: os._exit(128 + number))
asyncio.run(serve())
