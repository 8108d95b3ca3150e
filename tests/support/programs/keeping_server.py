"""A quick server that keeps connections; `/slow` is answered after 3 s. SIGTERM ends it at once, whatever it does."""

import asyncio
import os
import signal

BODY = f"You are using version {os.environ['VERSION']}\n".encode()
HEAD = f"HTTP/1.1 200 OK\r\nContent-Length: {len(BODY)}\r\n\r\n".encode()


class Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._text = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._text += data
        while b"\r\n\r\n" in self._text:
            head, self._text = self._text.split(b"\r\n\r\n", 1)
            wait_s = 3 if head.startswith(b"GET /slow") else 0
            asyncio.get_running_loop().call_later(wait_s, self._answer, b"connection: close" in head.lower())

    def _answer(self, is_last: bool) -> None:
        self._transport.write(HEAD + BODY)
        if is_last:
            self._transport.close()


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Connection, "", 8000, backlog=1024)
    await server.serve_forever()


signal.signal(signal.SIGTERM, lambda number, frame: os._exit(128 + number))
asyncio.run(serve())
