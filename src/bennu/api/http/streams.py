"""Chunked streams, and connections that are taken over from HTTP (hijacked).

A hijacked connection belongs to its handler: bytes the client sent are read in order, also those that came together
with the request head; a client's half-close is an end of input and nothing more; a client that is gone sets `gone`.
"""

import asyncio
import contextlib
import logging
import select
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol, TypeVar, runtime_checkable

from aiohttp import web

from bennu.api.http.query import is_version_at_least

RAW: Final = "application/vnd.docker.raw-stream"
MULTIPLEXED: Final = "application/vnd.docker.multiplexed-stream"
STDOUT: Final = 1
STDERR: Final = 2
READ_AHEAD: Final = 256 * 1024  # bytes of input held before the client has to wait
HEADER: Final = struct.Struct(">BxxxL")

log = logging.getLogger(__name__)
Function = TypeVar("Function", bound=Callable[..., object])


def frame(stream: int, data: bytes) -> bytes:
    """Prefix data with stream and length: Docker's multiplexing (moby `pkg/stdcopy/stdcopy.go`)."""
    return HEADER.pack(stream, len(data)) + data


def ends_with_client(handler: Function) -> Function:
    """Mark a handler that is cancelled when its client leaves. All others run to their end."""
    handler.__dict__["ends_with_client"] = True
    return handler


def stream_type(request: web.Request, *, multiplexed: bool) -> str:
    """Choose the content type: multiplexed from API 1.42 on, if the stream is; else raw."""
    return MULTIPLEXED if multiplexed and is_version_at_least(request, 42) else RAW


async def open_chunks(
    request: web.Request,
    content_type: str = "application/json",
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> web.StreamResponse:
    """Begin a chunked answer and send its head; the handler writes to it and returns it.

    A handler that fails after this breaks the connection off: the client sees that it did not get everything.
    """
    response = web.StreamResponse(status=status, headers={"Content-Type": content_type, **(headers or {})})
    if request.version >= (1, 1):
        response.enable_chunked_encoding()
    await response.prepare(request)
    return response


async def write_file(request: web.Request, response: web.StreamResponse, path: Path, size: int) -> None:
    """Write `size` bytes of a file into a chunked answer, from the kernel's memory to the client's socket.

    Raises: OSError, ConnectionError.
    """
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client left")
    if not size:
        return
    is_chunked = request.version >= (1, 1)
    if is_chunked:
        transport.write(b"%x\r\n" % size)
    with await asyncio.to_thread(path.open, "rb") as file:
        sent = await asyncio.get_running_loop().sendfile(transport, file, 0, size)
    if sent != size:
        raise OSError(f"{path} is shorter than {size} bytes")
    if is_chunked:
        transport.write(b"\r\n")


def has_hung_up(fd: int) -> bool:
    """Tell whether the peer has closed both directions."""
    poll = select.poll()
    poll.register(fd, 0)
    return bool(poll.poll(0))


class HangUpWatch:
    """Calls back once when the peer of a socket has closed both directions, even if nobody reads or writes.

    After a half-close asyncio watches a socket no more, so a client that dies later would go unseen while the
    container is silent. An epoll object of its own reports hang-ups without being asked for reads.
    """

    def __init__(self, fd: int, callback: Callable[[], None]) -> None:
        self._epoll = select.epoll()
        self._callback = callback
        self._loop = asyncio.get_running_loop()
        self._epoll.register(fd, 0)  # hang-ups and errors are always reported
        self._loop.add_reader(self._epoll.fileno(), self._hung_up)

    def _hung_up(self) -> None:
        self.close()
        self._callback()

    def close(self) -> None:
        """Stop watching. Idempotent."""
        if not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()


@runtime_checkable
class Underlying(Protocol):
    """What a connection offers to be taken over; `serve.Connection` is one."""

    half_closed: bool

    def take_input(self) -> bytes: ...

    def connection_lost(self, error: BaseException | None) -> None: ...


class Hijacked(asyncio.Protocol):
    """A client's raw connection, after HTTP. Made by `hijack`."""

    def __init__(self, transport: asyncio.Transport, former: Underlying, received: bytes) -> None:
        self.gone = asyncio.Event()  # nobody is there to read what we write
        self._transport = transport
        self._former = former
        self._received = bytearray(received)
        self._ended = False  # the client will send no more
        self._input = asyncio.Event()
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._watch: HangUpWatch | None = None

    # --- for the handler ----------------------------------------------------------------------------------------

    async def read(self) -> bytes | None:
        """Wait for what the client sends; None after its half-close or its end."""
        while not self._received:
            if self._ended:
                return None
            self._input.clear()
            await self._input.wait()
        data = bytes(self._received)
        self._received.clear()
        self._transport.resume_reading()
        return data

    async def write(self, data: bytes) -> None:
        """Send; waits while the client is slow. Raises: ConnectionResetError once it is gone."""
        if self.gone.is_set() or self._transport.is_closing():
            raise ConnectionResetError("the client is gone")
        self._transport.write(data)
        await self._may_write.wait()

    async def close(self) -> None:
        """Send what is left, then close. Idempotent; a client that does not read is cut off after 10 s."""
        if not self._transport.is_closing():
            self._transport.close()
        try:
            async with asyncio.timeout(10):
                await self.gone.wait()
        except TimeoutError:
            self._transport.abort()

    # --- for asyncio --------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._input.set()
        if len(self._received) > READ_AHEAD:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._end_input()
        if self._watch is None and not self.gone.is_set():
            connection = self._transport.get_extra_info("socket")
            self._watch = HangUpWatch(connection.fileno(), self._transport.abort)
        return True  # keep the other direction open: `docker run -i` has output to come

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def connection_lost(self, error: Exception | None) -> None:
        if self._watch is not None:
            self._watch.close()
        self._end_input()
        self.gone.set()
        self._may_write.set()

    def _end_input(self) -> None:
        self._ended = True
        self._input.set()

    def give_back(self, error: Exception | None = None) -> None:
        """Let aiohttp forget the connection; the handler is done with it."""
        self._former.connection_lost(error)


class Taken(web.StreamResponse):
    """What a handler returns to aiohttp after a hijack, so that nothing more is written."""

    def __init__(self, connection: Hijacked) -> None:
        super().__init__()
        self.force_close()
        self._connection = connection

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        asyncio.get_running_loop().call_soon(self._connection.give_back)


async def take_over(
    request: web.Request,
    content_type: str,
    work: Callable[[Hijacked], Awaitable[None]],
    *,
    headers: Mapping[str, str] | None = None,
) -> web.StreamResponse:
    """Hijack, run `work` on the raw connection, close it. A failure of `work` ends the connection and nothing else.

    Read the request's body before.
    """
    return await attend(request, hijack(request, content_type, headers=headers), work)


async def attend(
    request: web.Request, connection: Hijacked, work: Callable[[Hijacked], Awaitable[None]]
) -> web.StreamResponse:
    """Run `work` on a connection that was taken over, and close it; as `take_over` does."""
    try:
        await work(connection)
    except ConnectionError:
        pass  # the client left
    except Exception:
        log.exception("%s %s failed after its head was sent", request.method, request.path)
    finally:
        await connection.close()
    return Taken(connection)


async def refuse_as_text(request: web.Request, status: str, message: str) -> web.StreamResponse:
    """Answer an error as raw text and close, as the clients of attach expect."""

    connection = hijack(request, RAW, status=status)
    with contextlib.suppress(ConnectionError):
        await connection.write(f"{message}\r\n".encode())
    await connection.close()
    return Taken(connection)


def hijack(
    request: web.Request, content_type: str, *, status: str = "", headers: Mapping[str, str] | None = None
) -> Hijacked:
    """Take the connection over and send the head that says so.

    `status` is for errors told as raw text; otherwise it is 101 for a client that asked for an upgrade, else 200, which
    calls every stream raw, as dockerd does.
    Return `Taken(connection)` from the handler, whatever happens in between.
    """
    lines = [f"HTTP/1.1 {status or '200 OK'}", f"Content-Type: {RAW}"]
    if not status and "upgrade" in request.headers:
        lines = ["HTTP/1.1 101 UPGRADED", f"Content-Type: {content_type}", "Connection: Upgrade", "Upgrade: tcp"]
    return _take(request, [*lines, *(f"{name}: {value}" for name, value in (headers or {}).items())])


def switch_protocol(request: web.Request, protocol: str) -> Hijacked:
    """Take the connection over for another protocol; see `hijack`."""
    return _take(request, ["HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", f"Upgrade: {protocol}"])


def _take(request: web.Request, head: Sequence[str]) -> Hijacked:
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client is gone")
    former = request.protocol
    assert isinstance(former, Underlying)
    connection = Hijacked(transport, former, former.take_input())
    transport.write("\r\n".join([*head, "", ""]).encode())
    transport.set_protocol(connection)
    transport.resume_reading()
    if former.half_closed:
        connection.eof_received()
    return connection
