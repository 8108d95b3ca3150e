"""From a listening socket to requests: aiohttp's protocol, made to bear clients that half-close."""

import asyncio
import socket
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from bennu.api.streams import HangUpWatch


class Connection(RequestHandler):
    """One client's connection.

    A client may shut down its sending side after a request (`nc -N`, `socat`) and still read the answer; aiohttp alone
    would drop the connection there. One that is really gone is noticed all the same.
    """

    def __init__(self, manager: web.Server, **settings: Any) -> None:
        super().__init__(manager, **settings)
        self.half_closed = False
        self.busy = False  # a request is being answered; kept by the application
        self._watch: HangUpWatch | None = None

    def eof_received(self) -> bool:  # type: ignore[override]
        self.half_closed = True
        if not self.busy or self.transport is None:
            return False
        connection = self.transport.get_extra_info("socket")
        self._watch = HangUpWatch(connection.fileno(), self.transport.abort)
        return True

    def connection_lost(self, error: BaseException | None) -> None:
        if self._watch is not None:
            self._watch.close()
        super().connection_lost(error)


class ApiServer:
    """An application answering on any number of listening sockets."""

    def __init__(self, app: web.Application) -> None:
        self._runner = web.AppRunner(app, handle_signals=False, access_log=None, handler_cancellation=True)
        self._servers: list[asyncio.Server] = []

    async def start(self, listening: list[socket.socket]) -> None:
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        for listener in listening:
            self._servers.append(await loop.create_server(self._connection, sock=listener))

    def _connection(self) -> Connection:
        manager = self._runner.server
        assert manager is not None
        return Connection(manager, loop=asyncio.get_running_loop(), access_log=None, keepalive_timeout=3600.0)

    async def close(self, timeout_s: float = 1.0) -> None:
        """Accept nobody new, give requests under way `timeout_s`, then cut them off."""
        for server in self._servers:
            server.close()
        if self._runner.server is not None:
            await self._runner.server.shutdown(timeout_s)
        await self._runner.cleanup()
