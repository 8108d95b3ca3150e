"""Serves HTTP on listening sockets: aiohttp's protocol, extended for clients that close only their sending side."""

import asyncio
import re
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Final

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler, RequestPayloadError

from bennu.api.http.responses import error_response
from bennu.api.http.streams import HangUpWatch, has_hung_up
from bennu.api.http.tls_front import TlsFront

KEEP_RAW: Final = 64 * 1024
CONTENT_LENGTH: Final = re.compile(rb"^content-length:[ \t]*([0-9]{1,9})", re.IGNORECASE | re.MULTILINE)
METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
MAX_HEAD_BYTES: Final = 1024 * 1024  # of a request line, and of a header: Go's limit for both together
READ_BYTES: Final = 256 * 1024  # of a body, before its client has to wait
MAX_HEADERS: Final = 4096
BACKLOG: Final = 1024  # clients that may wait to be accepted; asyncio would listen anew with 100
HALF_CLOSED_GRACE_S: Final = 0.5  # for a request that came together with the half-close to be taken up


class Connection(RequestHandler):
    """One client's connection.

    A client may shut down its sending side after a request (`nc -N`, `socat`) and still read the answer; aiohttp alone
    would drop the connection there. One that is really gone is noticed all the same. What a client sends behind a
    request that becomes a raw stream is its first input; aiohttp's parser loses it, so it is remembered here.
    """

    def __init__(self, manager: web.Server, subject: str | None = None, certificate: str = "", **settings: Any) -> None:
        super().__init__(manager, **settings)
        self.subject = subject  # of the client's certificate, where it came over TLS
        self.certificate = certificate  # in PEM
        self.half_closed = False
        self.answering = False  # the head of the answer is on its way
        self._busy = False
        self._watch: HangUpWatch | None = None
        self._raw: bytearray | None = bytearray()  # the present request as it came; None: too long to be kept

    def begin(self) -> None:
        """Note that a request is being worked on."""
        self._busy = True
        self.answering = False
        if self.half_closed:
            self._break_off_body()

    def end(self) -> bool:
        """Note that the request is answered; False when the client will send no other."""
        self._busy = False
        self._raw = bytearray()
        return not self.half_closed

    def take_input(self) -> bytes:
        """Take what came behind the present request, once; for a connection that is taken over."""
        raw, self._raw = bytes(self._raw or b""), bytearray()
        head, found, rest = raw.partition(b"\r\n\r\n")
        length = CONTENT_LENGTH.search(head)
        return rest[int(length[1]) if length else 0 :] if found else b""

    def data_received(self, data: bytes) -> None:
        if self._raw is not None:
            self._raw += data
            if len(self._raw) > KEEP_RAW:
                self._raw = None
        super().data_received(data)

    def eof_received(self) -> bool:  # type: ignore[override]
        connection: Any = self.transport.get_extra_info("socket") if self.transport else None
        if connection is None or has_hung_up(connection.fileno()):
            return False
        self.half_closed = True
        self._break_off_body()
        self._watch = HangUpWatch(connection.fileno(), self._abort)
        asyncio.get_running_loop().call_later(HALF_CLOSED_GRACE_S, self._close_if_idle)
        return True

    def _break_off_body(self) -> None:
        """Tell the reader of the present body that the rest will not come, instead of letting it wait for ever."""
        request = self._current_request
        if request is not None and not request.content.is_eof():
            request.content.set_exception(RequestPayloadError("the client ended in the middle of it"))
            request.content.feed_eof()

    def _close_if_idle(self) -> None:
        if not self._busy and self.transport is not None:
            self.transport.close()

    def _abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def connection_lost(self, error: BaseException | None) -> None:
        if self._watch is not None:
            self._watch.close()
        super().connection_lost(error)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is not HTTP at all; errors of requests have been answered before."""
        status = 431 if isinstance(exc, LineTooLong) else status
        response = error_response(f"bad request: {message or exc}", status)
        response.force_close()
        return response


class ApiServer:
    """Lets an application answer on any number of listening sockets."""

    def __init__(self, app: web.Application) -> None:
        self._runner = web.AppRunner(
            app, handle_signals=False, access_log=None, handler_cancellation=True, read_bufsize=READ_BYTES
        )
        self._servers: list[asyncio.Server] = []
        self._fronts: list[TlsFront] = []
        self._metrics: web.AppRunner | None = None

    async def start(self, listening: Sequence[socket.socket], tls: ssl.SSLContext | None = None) -> None:
        """Serve on the sockets. `tls` is needed as soon as one of them is no unix socket."""
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        for listener in listening:
            if listener.family == socket.AF_UNIX:
                self._servers.append(await loop.create_server(self._connection, sock=listener, backlog=BACKLOG))
            else:
                assert tls is not None
                self._fronts.append(TlsFront(listener, tls, self._welcome))

    async def serve_metrics(self, listener: socket.socket, render: Callable[[], bytes]) -> None:
        """Answer `GET /metrics` on a socket of its own, to anybody: nothing else is there."""

        async def metrics(request: web.Request) -> web.Response:
            return web.Response(body=render(), headers={"Content-Type": METRICS_TYPE})

        app = web.Application()
        app.router.add_get("/metrics", metrics)
        self._metrics = web.AppRunner(app, handle_signals=False, access_log=None)
        await self._metrics.setup()
        await web.SockSite(self._metrics, listener).start()

    def _connection(self, subject: str | None = None, certificate: str = "") -> Connection:
        manager = self._runner.server
        assert manager is not None
        loop = asyncio.get_running_loop()
        # Bodies are taken as they come, whatever their Content-Encoding says: so dockerd does it too.
        return Connection(
            manager,
            subject,
            certificate,
            loop=loop,
            access_log=None,
            keepalive_timeout=3600.0,
            auto_decompress=False,
            max_line_size=MAX_HEAD_BYTES,
            max_field_size=MAX_HEAD_BYTES,
            max_headers=MAX_HEADERS,
        )

    async def _welcome(self, client: socket.socket, subject: str, certificate: str) -> None:
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(lambda: self._connection(subject, certificate), sock=client)

    @property
    def open_connections(self) -> int:
        """Count the connections that are open now."""
        return len(self._runner.server.connections) if self._runner.server else 0

    async def close(self, timeout_s: float = 1.0) -> None:
        """Accept nobody new, give requests under way `timeout_s`, then cut them off."""
        for server in self._servers:
            server.close()
        for front in self._fronts:
            front.stop_accepting()
        if self._runner.server is not None:
            await self._runner.server.shutdown(timeout_s)
        for front in self._fronts:
            await front.close()
        if self._metrics is not None:
            await self._metrics.cleanup()
        await self._runner.cleanup()
