"""gRPC over an `Http2`: calls that are answered, and calls that are made.

(https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md)
"""

import base64
import contextlib
import logging
import re
import urllib.parse
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import IntEnum
from typing import Final, TypeVar

from bennu.build.wire.http2 import Http2
from bennu.build.wire.http2_stream import NO_ERROR, Headers, Http2Stream, StreamReset
from bennu.build.wire.messages import AnyValue, RpcStatus
from bennu.build.wire.protobuf import Message
from bennu.errors import BennuError, NotImplementedHere

PREFIX_SIZE: Final = 5  # of each message: whether it is compressed, its length
MAX_MESSAGE: Final = 16 << 20  # grpc's own limit is 4 MiB; BuildKit sets 16
CONTENT_TYPE: Final = "application/grpc"
OPENED: Final = ((":status", "200"), ("content-type", CONTENT_TYPE))
PRINTABLE: Final = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")

log = logging.getLogger(__name__)
M = TypeVar("M", bound=Message)


class Code(IntEnum):
    """gRPC's status codes, as far as they are used here."""

    OK = 0
    CANCELED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


class RpcFailed(BennuError):
    """A call ended with a status that is not OK."""

    def __init__(self, code: int, message: str, details: Sequence[AnyValue] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.details = details


class Call:
    """A call of either side: messages both ways until the end of each."""

    def __init__(self, stream: Http2Stream, metadata: Headers) -> None:
        self._stream = stream
        self.metadata = metadata

    def value(self, name: str) -> str:
        """Answer a value of the metadata; "": there is none."""
        return next((value for key, value in self.metadata if key == name), "")

    async def receive(self) -> bytes | None:
        """Wait for the next message; None: the other side has sent all of them. Raises: RpcFailed, StreamReset."""
        prefix = await self._stream.read(PREFIX_SIZE)
        if not prefix:
            return None
        length = int.from_bytes(prefix[1:])
        if prefix[0]:
            raise RpcFailed(Code.UNIMPLEMENTED, "compressed messages are not read here")
        if length > MAX_MESSAGE:
            raise RpcFailed(Code.RESOURCE_EXHAUSTED, f"a message of {length} bytes is too long")
        message = await self._stream.read(length)
        if len(prefix) < PREFIX_SIZE or len(message) < length:
            raise RpcFailed(Code.INTERNAL, "unexpected EOF")
        return message

    def receive_ready(self) -> bytes | None:
        """Answer the next message if it is here; None: it is not, or there is something wrong with it."""
        return self._stream.read_framed(PREFIX_SIZE, MAX_MESSAGE)

    async def receive_one(self, kind: type[M]) -> M:
        """Wait for the one message of a call that has one. Raises: RpcFailed, StreamReset, Malformed."""
        message = await self.receive()
        if message is None:
            raise RpcFailed(Code.INTERNAL, "a call without a message")
        return kind.decode(message)

    async def send(self, message: Message | bytes, *, end: bool = False) -> None:
        """Send a message; `end`: the last one of this side. Raises: StreamReset."""
        data = message if isinstance(message, bytes) else message.encode()
        await self._stream.send(b"\0" + len(data).to_bytes(4) + data, end=end)

    async def send_framed(self, frames: bytes) -> None:
        """Send messages that have their prefixes already. Raises: StreamReset."""
        await self._stream.send(frames)

    async def end(self) -> None:
        """Say that this side has sent all. Raises: StreamReset."""
        await self._stream.send(b"", end=True)


# --- answering ----------------------------------------------------------------------------------------------------

Method = Callable[[Call], Awaitable[None]]


def answers(methods: Mapping[str, Method]) -> Callable[[Http2Stream], Awaitable[None]]:
    """Make what serves the streams of an `Http2` with methods by their path."""

    async def serve(stream: Http2Stream) -> None:
        call = Call(stream, stream.headers)
        path = call.value(":path")
        try:
            stream.send_headers(OPENED)
            await _perform(methods.get(path), call, path)
            status: Headers = [("grpc-status", "0"), ("grpc-message", "")]
        except StreamReset:
            stream.reset()
            return
        except Exception as error:
            status = _trailers(_status_of(error, path))
        with contextlib.suppress(StreamReset):
            stream.send_headers(status, end=True)
            stream.reset(NO_ERROR)  # unless the client has ended, too

    return serve


async def _perform(method: Method | None, call: Call, path: str) -> None:
    if method is None:
        service, _, name = path.removeprefix("/").rpartition("/")
        raise RpcFailed(Code.UNIMPLEMENTED, f"{name} of {service} is not implemented")
    await method(call)


def _status_of(error: Exception, path: str) -> RpcFailed:
    if isinstance(error, RpcFailed):
        return error
    if isinstance(error, BennuError):  # clients show the message alone only where the code says nothing
        return RpcFailed(Code.UNIMPLEMENTED if isinstance(error, NotImplementedHere) else Code.UNKNOWN, str(error))
    log.error("%s failed", path, exc_info=error)
    return RpcFailed(Code.INTERNAL, f"{type(error).__name__}: {error}")


def _trailers(error: RpcFailed) -> Headers:
    trailers = [("grpc-status", str(int(error.code))), ("grpc-message", urllib.parse.quote(str(error), PRINTABLE))]
    if error.details:
        status = RpcStatus(int(error.code), str(error), list(error.details)).encode()
        trailers.append(("grpc-status-details-bin", base64.b64encode(status).decode().rstrip("=")))
    return trailers


# --- calling ------------------------------------------------------------------------------------------------------


class Outgoing(Call):
    """A call that we make."""

    def __init__(self, stream: Http2Stream) -> None:
        super().__init__(stream, ())

    async def check(self) -> None:
        """Wait for the end of the call. Raises: RpcFailed if it is not OK; StreamReset."""
        await self._stream.wait_end()
        found = dict(self._stream.trailers or self._stream.headers)
        code = found.get("grpc-status", "")
        if code != "0":
            message = urllib.parse.unquote(found.get("grpc-message", ""))
            status = found.get(":status", "200")
            known = re.fullmatch("[0-9]{1,3}", code)
            raise RpcFailed(int(code) if known else Code.UNKNOWN, message or f"the call ended with HTTP's {status}")

    def cancel(self) -> None:
        """Break the call off, unless it has ended."""
        self._stream.reset()


def begin(connection: Http2, path: str, metadata: Headers = ()) -> Outgoing:
    """Begin a call. Raises: StreamReset."""
    head = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost")]
    head += [("content-type", CONTENT_TYPE), ("user-agent", "bennu"), ("te", "trailers"), *metadata]
    return Outgoing(connection.open(head))


async def ask(connection: Http2, path: str, request: Message, kind: type[M]) -> M:
    """Make a call with one message each way. Raises: RpcFailed; StreamReset, Malformed."""
    call = begin(connection, path)
    try:
        with contextlib.suppress(StreamReset):  # refused before it was read: the status says why
            await call.send(request, end=True)
        message = await call.receive()
        await call.check()
        if message is None:
            raise RpcFailed(Code.INTERNAL, "a call without an answer")
        return kind.decode(message)
    finally:
        call.cancel()
