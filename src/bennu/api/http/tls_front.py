"""Serves the API over TCP, only with TLS and a client certificate: whoever reaches the API is root."""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Final

from bennu.tls import TlsSession, prepare, relay

HANDSHAKE_S: Final = 10
MOST_HANDSHAKES: Final = 256  # at a time; who comes then takes the place of whoever has hesitated longest
AFTER_NO_DESCRIPTOR_S: Final = 1.0
PLAIN_HTTP: Final = (  # word for word what Go's servers say to it
    b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
)

log = logging.getLogger(__name__)
Welcome = Callable[[socket.socket, str, str], Awaitable[object]]


class TlsFront:
    """Accepts on one listening socket.

    A client that proves itself is given to `welcome` as a plain stream socket, with the subject of its
    certificate and this in PEM.
    """

    def __init__(self, listener: socket.socket, context: ssl.SSLContext, welcome: Welcome) -> None:
        self._listener = listener
        self._context = context
        self._welcome = welcome
        self._clients: set[asyncio.Task[None]] = set()
        self._strangers: dict[asyncio.Task[None], None] = {}  # those that shake hands, in the order they came
        self._accepting = asyncio.ensure_future(self._accept())

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._listener)
            except OSError as error:
                log.warning("cannot accept a connection: %s", error.strerror or error)
                await asyncio.sleep(AFTER_NO_DESCRIPTOR_S)
                continue
            if len(self._strangers) >= MOST_HANDSHAKES:
                slowest = next(iter(self._strangers))
                slowest.cancel()
                del self._strangers[slowest]
            client = asyncio.ensure_future(self._serve(connection))
            self._clients.add(client)
            self._strangers[client] = None
            client.add_done_callback(self._forget)
            await asyncio.sleep(0)  # as long as somebody waits to be accepted, the accept above lets nobody else run

    def _forget(self, client: asyncio.Task[None]) -> None:
        self._clients.discard(client)
        self._strangers.pop(client, None)
        if not client.cancelled() and (error := client.exception()) is not None:
            log.warning("a client over TLS was lost: %s", error)

    async def _serve(self, connection: socket.socket) -> None:
        with contextlib.closing(connection):
            session = await self._admit(connection)
            client = asyncio.current_task()
            assert client is not None
            self._strangers.pop(client, None)
            if session is None:
                return
            plain, inner = socket.socketpair()
            with contextlib.closing(plain):
                plain.setblocking(False)
                inner.setblocking(False)
                await self._welcome(inner, session.subject, session.certificate)
                await relay(session, plain)

    async def _admit(self, connection: socket.socket) -> TlsSession | None:
        """Shake hands with a client. None: it is not admitted."""
        prepare(connection)
        session = TlsSession(self._context, connection)
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                await session.shake_hands()
        except ssl.SSLError as error:
            log.info("a client over TLS was refused: %s", error.reason or error)
            if error.reason == "HTTP_REQUEST":
                with contextlib.suppress(OSError):
                    connection.send(PLAIN_HTTP)
                    connection.shutdown(socket.SHUT_WR)
            return None
        except (OSError, TimeoutError):
            return None
        return session

    def stop_accepting(self) -> None:
        """Accept nobody new. Idempotent."""
        self._accepting.cancel()

    async def close(self) -> None:
        """Cut off all clients. Idempotent."""
        tasks = [self._accepting, *self._clients]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
