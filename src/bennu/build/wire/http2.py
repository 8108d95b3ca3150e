"""HTTP/2 over a connection that is there already, as gRPC needs it: either role, streams, windows (RFC 9113).

Left out because gRPC has no use for it: priorities, server push, upgrades. What the other side may make us keep is
bounded: windows for what it sends, the output that waits for it, the size of headers, the number of streams.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from hpack import Decoder, Encoder, HPACKError

from bennu.build.wire.http2_stream import (
    CANCEL,
    COMPRESSION_ERROR,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE,
    FRAME_SIZE_ERROR,
    MAX_WINDOW,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    STREAM_WINDOW,
    Headers,
    Http2Stream,
    ProtocolFault,
    StreamReset,
)

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_SIZE: Final = 9
DEFAULT_WINDOW: Final = 65535
CONNECTION_WINDOW: Final = 8 << 20
MAX_STREAMS: Final = 256  # that the other side may have open at once
MAX_HEADER_BYTES: Final = 1 << 20
OUTPUT_AHEAD: Final = 1 << 20  # of output, what waits before whoever sends has to
OUTPUT_LIMIT: Final = 4 << 20  # with what answers itself: more, and the other side does not read at all

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
WITH_PRIORITY: Final = 0x20
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_HEADER_LIST_SIZE = 1, 2, 3, 4, 6


class Link(Protocol):
    """A connection of bytes, in order."""

    async def read(self) -> bytes | None: ...  # None: the end

    async def write(self, data: bytes) -> None: ...  # Raises: ConnectionError


class Http2:
    """One connection. `serve` is run as a task for each stream that the other side opens; None: it may open none."""

    def __init__(self, link: Link, *, serve: Callable[[Http2Stream], Awaitable[None]] | None) -> None:
        self._link = link
        self._serve = serve
        self.ended = asyncio.Event()
        self.window = DEFAULT_WINDOW  # what we may still send, over all streams
        self._streams: dict[int, Http2Stream] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._next_own = 1
        self._last_theirs = 0
        self._owed = 0
        self._stream_window = DEFAULT_WINDOW  # what the other side grants each new stream
        self._decoder = Decoder(MAX_HEADER_BYTES)
        self._encoder = Encoder()
        self._preface_due = serve is not None
        self._rest = b""
        self._block: tuple[int, int, bytearray] | None = None  # stream, flags and headers that go on
        self._output = bytearray()
        self._has_output = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()

    # --- for users ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Speak until the connection ends; then all its streams have ended, and who served them."""
        writing = asyncio.create_task(self._write())
        try:
            self._greet()
            await self._read(writing)
        except (ProtocolFault, HPACKError) as fault:
            code = fault.code if isinstance(fault, ProtocolFault) else COMPRESSION_ERROR
            self._put(GOAWAY, 0, 0, self._last_theirs.to_bytes(4) + code.to_bytes(4) + str(fault).encode())
            with contextlib.suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(1):
                    await self._link.write(bytes(self._output))
        except ConnectionError:
            pass
        finally:
            self.ended.set()
            writing.cancel()
            for stream in list(self._streams.values()):
                stream.fail(StreamReset(CANCEL, "the connection is gone"))
            self._drained.set()
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(writing, *tasks, return_exceptions=True)

    def open(self, headers: Headers) -> Http2Stream:
        """Open a stream with a request. Raises: StreamReset."""
        if self.ended.is_set():
            raise StreamReset(CANCEL, "the connection is gone")
        stream = Http2Stream(self, self._next_own, self._stream_window)
        self._next_own += 2
        self._streams[stream.number] = stream
        stream.send_headers(headers)
        return stream

    # --- output -------------------------------------------------------------------------------------------------

    def _greet(self) -> None:
        own = {INITIAL_WINDOW_SIZE: STREAM_WINDOW, MAX_HEADER_LIST_SIZE: MAX_HEADER_BYTES}
        own |= {ENABLE_PUSH: 0} if self._serve is None else {MAX_CONCURRENT_STREAMS: MAX_STREAMS}
        greeting = b"".join(key.to_bytes(2) + value.to_bytes(4) for key, value in own.items())
        if self._serve is None:
            self._output[:0] = PREFACE + _head(len(greeting), SETTINGS, 0, 0) + greeting
        else:
            self._put(SETTINGS, 0, 0, greeting)
        self._put(WINDOW_UPDATE, 0, 0, (CONNECTION_WINDOW - DEFAULT_WINDOW).to_bytes(4))

    async def _write(self) -> None:
        try:
            while True:
                await self._has_output.wait()
                self._has_output.clear()
                data = bytes(self._output)
                self._output.clear()
                await self._link.write(data)
                self._drained.set()
        except ConnectionError:
            return

    def _put(self, kind: int, flags: int, stream: int, payload: bytes | memoryview = b"") -> None:
        self._output += _head(len(payload), kind, flags, stream)
        self._output += payload
        self._has_output.set()
        if len(self._output) > OUTPUT_AHEAD:
            self._drained.clear()

    def put_headers(self, stream: int, headers: Headers, *, end: bool) -> None:
        block = self._encoder.encode(headers)
        kind, flags = HEADERS, END_STREAM if end else 0
        while len(block) > FRAME_SIZE:
            self._put(kind, flags, stream, block[:FRAME_SIZE])
            block, kind, flags = block[FRAME_SIZE:], CONTINUATION, 0
        self._put(kind, flags | END_HEADERS, stream, block)

    def put_data(self, stream: int, data: memoryview, *, end: bool) -> None:
        self.window -= len(data)
        self._put(DATA, END_STREAM if end else 0, stream, data)

    def put_reset(self, stream: int, code: int) -> None:
        self._put(RST_STREAM, 0, stream, code.to_bytes(4))

    def give_back(self, stream: Http2Stream, size: int) -> None:
        """Open the windows again by what a stream has used up."""
        if not stream.input_ended:
            self._put(WINDOW_UPDATE, 0, stream.number, size.to_bytes(4))
        self._give_back(size)

    def _give_back(self, size: int) -> None:
        self._owed += size
        if self._owed >= CONNECTION_WINDOW // 4:
            self._put(WINDOW_UPDATE, 0, 0, self._owed.to_bytes(4))
            self._owed = 0

    async def wait_drained(self) -> None:
        """Wait until not much output is left that the other side has not taken."""
        await self._drained.wait()

    def forget(self, stream: Http2Stream) -> None:
        if self._streams.pop(stream.number, None) is not None and stream.held:
            self._give_back(stream.held)

    # --- input --------------------------------------------------------------------------------------------------

    async def _read(self, writing: asyncio.Task[None]) -> None:
        while not writing.done():
            data = await self._link.read()
            if data is None:
                return
            self._feed(data)
            if len(self._output) > OUTPUT_LIMIT:
                raise ProtocolFault(ENHANCE_YOUR_CALM, "more is asked than is read")

    def _feed(self, data: bytes) -> None:
        """Take what came; a frame that is incomplete is kept until its end comes. Raises: ProtocolFault, HPACKError."""
        data = self._rest + data if self._rest else data
        if self._preface_due:
            if not data.startswith(PREFACE[: len(data)]):
                raise ProtocolFault(PROTOCOL_ERROR, "this is no HTTP/2")
            if len(data) < len(PREFACE):
                self._rest = data
                return
            self._preface_due = False
            data = data[len(PREFACE) :]
        view, at, end = memoryview(data), 0, len(data)
        while end - at >= HEAD_SIZE:
            length = int.from_bytes(data[at : at + 3])
            if length > FRAME_SIZE:
                raise ProtocolFault(FRAME_SIZE_ERROR, "a frame is too long")
            after = at + HEAD_SIZE + length
            if after > end:
                break
            stream = int.from_bytes(data[at + 5 : at + 9]) & 0x7FFFFFFF
            self._frame(data[at + 3], data[at + 4], stream, view[at + HEAD_SIZE : after])
            at = after
        self._rest = data[at:]

    def _frame(self, kind: int, flags: int, number: int, payload: memoryview) -> None:
        if self._block is not None and kind != CONTINUATION:
            raise ProtocolFault(PROTOCOL_ERROR, "headers are interrupted")
        match kind:
            case 0:
                self._data(flags, number, payload)
            case 1:
                self._headers(flags, number, payload)
            case 3:
                self._reset(number, payload)
            case 4:
                self._settings(flags, number, payload)
            case 5:
                raise ProtocolFault(PROTOCOL_ERROR, "nothing may be pushed")
            case 6:
                self._ping(flags, number, payload)
            case 8:
                self._window_update(number, payload)
            case 9:
                self._continuation(flags, number, payload)
            case _:
                pass  # PRIORITY, GOAWAY (the end follows), and what is younger than this code

    def _data(self, flags: int, number: int, payload: memoryview) -> None:
        size = len(payload)
        stream = self._streams.get(number)
        if stream is None or stream.input_ended:
            self._check_known(number)
            self._give_back(size)  # of a stream that was broken off meanwhile
            return
        stream.take_data(_unpadded(payload, flags), size, end=bool(flags & END_STREAM))

    def _headers(self, flags: int, number: int, payload: memoryview) -> None:
        payload = _unpadded(payload, flags)
        if flags & WITH_PRIORITY:
            if len(payload) < 5:
                raise ProtocolFault(FRAME_SIZE_ERROR, "a frame is too short")
            payload = payload[5:]
        self._block = (number, flags, bytearray(payload))
        if flags & END_HEADERS:
            self._end_block()

    def _continuation(self, flags: int, number: int, payload: memoryview) -> None:
        if self._block is None or self._block[0] != number:
            raise ProtocolFault(PROTOCOL_ERROR, "headers go on that did not begin")
        block = self._block[2]
        block += payload
        if len(block) > MAX_HEADER_BYTES:
            raise ProtocolFault(ENHANCE_YOUR_CALM, "too many headers")
        if flags & END_HEADERS:
            self._end_block()

    def _end_block(self) -> None:
        assert self._block is not None
        number, flags, block = self._block
        self._block = None
        headers = [(_text(header[0]), _text(header[1])) for header in self._decoder.decode(bytes(block), raw=True)]
        end = bool(flags & END_STREAM)
        stream = self._streams.get(number)
        if stream is None:
            stream = self._begin(number)
            if stream is None:
                return
            stream.take_headers(headers, end=end)
            self._start(stream)
        elif not stream.input_ended:
            stream.take_headers(headers, end=end)

    def _begin(self, number: int) -> Http2Stream | None:
        """Begin a stream of the other side's; None: one that is gone already, or one too many."""
        if self._serve is None or number <= self._last_theirs:
            self._check_known(number)
            return None
        if number % 2 == 0:
            raise ProtocolFault(PROTOCOL_ERROR, "a stream's number is not the client's")
        self._last_theirs = number
        if len(self._streams) >= MAX_STREAMS:
            self.put_reset(number, REFUSED_STREAM)
            return None
        stream = self._streams[number] = Http2Stream(self, number, self._stream_window)
        return stream

    def _start(self, stream: Http2Stream) -> None:
        assert self._serve is not None
        stream.task = asyncio.ensure_future(self._serve(stream))
        self._tasks.add(stream.task)
        stream.task.add_done_callback(self._tasks.discard)

    def _check_known(self, number: int) -> None:
        known = number < self._next_own if self._serve is None else number <= self._last_theirs
        if number == 0 or not known:
            raise ProtocolFault(PROTOCOL_ERROR, f"stream {number} was not opened")

    def _reset(self, number: int, payload: memoryview) -> None:
        _check_size(payload, 4)
        self._check_known(number)
        stream = self._streams.get(number)
        if stream is not None:
            stream.fail(StreamReset(int.from_bytes(payload)))

    def _settings(self, flags: int, number: int, payload: memoryview) -> None:
        if flags & ACK:
            return
        if number or len(payload) % 6:
            raise ProtocolFault(FRAME_SIZE_ERROR, "settings of a wrong size")
        for at in range(0, len(payload), 6):
            key, value = int.from_bytes(payload[at : at + 2]), int.from_bytes(payload[at + 2 : at + 6])
            if key == INITIAL_WINDOW_SIZE:
                self._resize_windows(value)
            elif key == HEADER_TABLE_SIZE:
                self._encoder.header_table_size = min(value, 4096)
        self._put(SETTINGS, ACK, 0)

    def _resize_windows(self, value: int) -> None:
        grown, self._stream_window = value - self._stream_window, value
        fits = value <= MAX_WINDOW and all(stream.take_window(grown) for stream in self._streams.values())
        if not fits:
            raise ProtocolFault(FLOW_CONTROL_ERROR, "a window is too large")

    def _ping(self, flags: int, number: int, payload: memoryview) -> None:
        _check_size(payload, 8)
        if not flags & ACK:
            self._put(PING, ACK, 0, payload)

    def _window_update(self, number: int, payload: memoryview) -> None:
        _check_size(payload, 4)
        more = int.from_bytes(payload) & MAX_WINDOW
        if number:
            self._check_known(number)
            stream = self._streams.get(number)
            if stream is not None and not stream.take_window(more):
                stream.reset(FLOW_CONTROL_ERROR)
            return
        self.window += more
        if self.window > MAX_WINDOW:
            raise ProtocolFault(FLOW_CONTROL_ERROR, "a window is too large")
        for stream in self._streams.values():
            stream.wake()


def _head(length: int, kind: int, flags: int, stream: int) -> bytes:
    return length.to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4)


def _check_size(payload: memoryview, size: int) -> None:
    if len(payload) != size:
        raise ProtocolFault(FRAME_SIZE_ERROR, "a frame of a wrong size")


def _unpadded(payload: memoryview, flags: int) -> memoryview:
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ProtocolFault(PROTOCOL_ERROR, "more padding than there is")
    return payload[1 : len(payload) - payload[0]]


def _text(value: bytes | str) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
