"""`/containers/{id}/attach`: a client joins a container's standard streams, before or during a run."""

import asyncio
import dataclasses
import time
from contextlib import aclosing
from typing import Any, Final

from aiohttp import WSMsgType, web

from bennu.api.http.detach_keys import parse_keys
from bennu.api.http.errors import status_of
from bennu.api.http.query import flag, text
from bennu.api.http.sessions import AttachOptions, SessionEnd, StreamClient, join
from bennu.api.http.streams import Hijacked, ends_with_client, refuse_as_text, stream_type, take_over
from bennu.api.routes.logs import LogEncoder, check_has_log
from bennu.engine.attach import Attachment
from bennu.engine.container import Container
from bennu.engine.engine import Engine
from bennu.engine.logs.reader import LogQuery, read_logs
from bennu.engine.wait_conditions import WaitCondition, WaitResult
from bennu.errors import BennuError, InvalidParameter

REASONS: Final = {400: "Bad Request", 404: "Not Found", 409: "Conflict", 501: "Not Implemented"}


def routes(engine: Engine) -> list[web.RouteDef]:
    api = AttachRoutes(engine)
    return [
        web.route("POST", "/containers/{id}/attach", api.attach),
        web.route("GET", "/containers/{id}/attach/ws", api.attach_web_socket),
    ]


class AttachRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @ends_with_client
    async def attach(self, request: web.Request) -> web.StreamResponse:
        """Join the streams over a hijacked connection. Errors come as raw text, which is how clients read them here."""
        try:
            container = self._engine.find(request.match_info["id"])
            options = read_attach_options(request, container)
            if flag(request, "logs"):
                check_has_log(container)
            session = await AttachSession.open(container) if flag(request, "stream") else None
        except BennuError as error:
            status = status_of(error)
            return await refuse_as_text(request, f"{status} {REASONS.get(status, 'Internal Server Error')}", str(error))

        async def work(connection: Hijacked) -> None:
            if flag(request, "logs"):
                await self._replay(container, connection, options)
            if session is not None:
                await session.hold(connection, options)

        try:
            return await take_over(request, stream_type(request, multiplexed=options.framed), work)
        finally:
            if session is not None:
                session.close()

    async def _replay(self, container: Container, client: StreamClient, options: AttachOptions) -> None:
        """Send what the container has written so far. What it writes meanwhile waits in the attachment."""
        query = LogQuery(stdout=options.stdout, stderr=options.stderr, until_ns=time.time_ns())
        encoder = LogEncoder(tty=not options.framed)
        path = self._engine.services.log_path(container.id)
        async with aclosing(read_logs(path, query, ended=container.exited)) as batches:
            async for records in batches:
                await client.write(encoder.encode(records))

    @ends_with_client
    async def attach_web_socket(self, request: web.Request) -> web.StreamResponse:
        """Join the streams over a web socket, never multiplexed."""
        socket = web.WebSocketResponse(autoping=True, heartbeat=30)
        if not socket.can_prepare(request):
            raise InvalidParameter("this is for web sockets: the request asks for no upgrade to one")
        container = self._engine.find(request.match_info["id"])
        options = read_attach_options(request, container)
        held = dataclasses.replace(options, framed=False, stdin=True, leave_at_end_of_input=True)
        if flag(request, "logs"):
            check_has_log(container)
        session = await AttachSession.open(container) if flag(request, "stream") else None
        try:
            await socket.prepare(request)
            client = WebSocketClient(socket, takes_input=options.stdin)
            try:
                if flag(request, "logs"):
                    await self._replay(container, client, held)
                if session is not None:
                    await session.hold(client, held)
            finally:
                await socket.close()
        finally:
            if session is not None:
                session.close()
        return socket


@dataclasses.dataclass(frozen=True, slots=True)
class AttachSession:
    """A client's place at a container's streams. `close` it in any case."""

    container: Container
    attachment: Attachment
    ended: asyncio.Future[WaitResult]  # the run that the client sees, or will see, is over and on record

    @classmethod
    async def open(cls, container: Container) -> "AttachSession":
        """Attach to the present run, or to the next one. Raises: as `Container.attach`."""
        ended = container.wait(WaitCondition.NEXT_EXIT)  # before: an end that comes meanwhile is this run's
        try:
            return cls(container, await container.attach(), ended)
        except BaseException:
            ended.cancel()
            raise

    async def hold(self, client: StreamClient, options: AttachOptions) -> None:
        """Carry bytes until one side ends.

        Output ends a moment before the container's end is on record; a client that has seen all of it may ask for the
        exit code, so it is let go only then.
        """
        why = await join(client, self.attachment, options)
        if why is SessionEnd.DETACHED:
            await self.container.publish("detach")
        if why is SessionEnd.OUTPUT:
            gone: asyncio.Future[Any] = asyncio.ensure_future(client.gone.wait())
            waiting: set[asyncio.Future[Any]] = {self.ended, gone}
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                gone.cancel()

    def close(self) -> None:
        """Leave. Idempotent."""
        self.ended.cancel()
        self.container.detach(self.attachment)


class WebSocketClient:
    """Makes a web socket look like a raw connection. It has no half-close: the end of input is the end.

    It is read even where no input is wanted: nothing else tells that it was closed.
    """

    def __init__(self, socket: web.WebSocketResponse, *, takes_input: bool) -> None:
        self.gone = asyncio.Event()
        self._socket = socket
        self._takes_input = takes_input

    async def read(self) -> bytes | None:
        message = await self._socket.receive()
        match message.type:
            case WSMsgType.BINARY:
                return bytes(message.data) if self._takes_input else b""
            case WSMsgType.TEXT:
                return str(message.data).encode() if self._takes_input else b""
        self.gone.set()
        return None

    async def write(self, data: bytes) -> None:
        await self._socket.send_bytes(data)


def read_attach_options(request: web.Request, container: Container) -> AttachOptions:
    """Read what the client asks for. Raises: InvalidParameter for bad detach keys."""
    config = container.record.config
    keys = parse_keys(text(request, "detachKeys"))
    return AttachOptions(
        framed=not config.tty,
        stdin=flag(request, "stdin") and config.open_stdin,
        stdout=flag(request, "stdout"),
        stderr=flag(request, "stderr"),
        keys=keys if config.tty else None,
        leave_at_end_of_input=config.tty or not config.stdin_once,
    )
