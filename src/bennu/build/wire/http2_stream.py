"""One stream of a connection of HTTP/2: its head, its data within the windows, its end (RFC 9113, section 5)."""

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

FRAME_SIZE: Final = 16384  # what everybody takes, and all that Go ever sends
STREAM_WINDOW: Final = 2 << 20
MAX_WINDOW: Final = (1 << 31) - 1
NO_ERROR, PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR = 0, 1, 3, 5, 6
REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 7, 8, 9, 11

Headers = Sequence[tuple[str, str]]


class StreamConnection(Protocol):
    """The connection, as its streams see it."""

    window: int  # what may still be sent, over all streams

    def put_headers(self, stream: int, headers: Headers, *, end: bool) -> None: ...

    def put_data(self, stream: int, data: memoryview, *, end: bool) -> None: ...

    def put_reset(self, stream: int, code: int) -> None: ...

    def give_back(self, stream: "Http2Stream", size: int) -> None:
        """Open the windows again by what a stream has used up."""
        ...

    async def wait_drained(self) -> None:
        """Wait until not much output is left that the other side has not taken."""
        ...

    def forget(self, stream: "Http2Stream") -> None: ...


class StreamReset(Exception):
    """The other side broke the stream off, or the connection is gone."""

    def __init__(self, code: int, message: str = "") -> None:
        super().__init__(message or f"the stream was reset with code {code}")
        self.code = code


class ProtocolFault(Exception):
    """The other side does not keep to HTTP/2; the connection ends."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Http2Stream:
    """One request and its answer. Made by the connection; `take_…`, `wake` and `fail` are for it alone."""

    def __init__(self, connection: StreamConnection, number: int, window: int) -> None:
        self.number = number
        self.headers: Headers = ()  # of the request for a server, of the answer for a client
        self.trailers: Headers | None = None
        self.input_ended = False
        self.output_ended = False
        self.task: asyncio.Task[None] | None = None
        self._connection = connection
        self._input = bytearray()
        self._owed = 0  # bytes that came and that the other side has not been given back
        self._window = window  # what we may still send
        self._changed = asyncio.Event()
        self._error: StreamReset | None = None

    # --- reading ------------------------------------------------------------------------------------------------

    async def wait_headers(self) -> Headers:
        """Wait for the head of the answer. Raises: StreamReset."""
        while not self.headers:
            await self._wait()
        return self.headers

    async def read(self, size: int) -> bytes:
        """Read as many bytes; less at the end of the input only. Raises: StreamReset."""
        while len(self._input) < size and not self.input_ended:
            self._give_back(whole=True)
            await self._wait()
        data = bytes(memoryview(self._input)[:size])
        del self._input[:size]
        self._give_back()
        return data

    def read_framed(self, prefix_size: int, limit: int) -> bytes | None:
        """Read the next message without its prefix, if all of it is here and is no longer than `limit`.

        The prefix ends with the length in four bytes. What is not to be read like this is left where it is: None.
        """
        held = self._input
        if len(held) < prefix_size or held[0]:
            return None
        end = prefix_size + int.from_bytes(held[prefix_size - 4 : prefix_size])
        if len(held) < end or end - prefix_size > limit:
            return None
        data = bytes(memoryview(held)[prefix_size:end])
        del held[:end]
        self._give_back()
        return data

    async def wait_end(self) -> None:
        """Wait for the end of the input; what still comes is dropped. Raises: StreamReset."""
        while not self.input_ended:
            self._input.clear()
            self._give_back(whole=True)
            await self._wait()

    async def _wait(self) -> None:
        """Wait for any change. Raises: StreamReset, unless all input came before the stream was broken off."""
        if self._error is None:
            self._changed.clear()
            await self._changed.wait()
        if self._error is not None and not self.input_ended:
            raise self._error

    def _give_back(self, *, whole: bool = False) -> None:
        """Open the window again by what was read; `whole`: also by what is held, since more is needed to go on."""
        if self._owed and (whole or self._owed - len(self._input) >= STREAM_WINDOW // 2):
            given = self._owed if whole else self._owed - len(self._input)
            self._owed -= given
            self._connection.give_back(self, given)

    # --- writing ------------------------------------------------------------------------------------------------

    def send_headers(self, headers: Headers, *, end: bool = False) -> None:
        """Send a head, or trailers with `end`. Raises: StreamReset."""
        self._check_output()
        self._connection.put_headers(self.number, headers, end=end)
        if end:
            self._end_output()

    async def send(self, data: bytes, *, end: bool = False) -> None:
        """Send data; waits for the other side's window. Raises: StreamReset."""
        view = memoryview(data)
        while True:
            self._check_output()
            room = min(self._window, self._connection.window, FRAME_SIZE)
            if room <= 0 and view:
                await self._wait()
                continue
            piece, view = view[:room], view[room:]
            self._window -= len(piece)
            last = end and not view
            self._connection.put_data(self.number, piece, end=last)
            if last:
                self._end_output()
            if not view:
                break
        await self._connection.wait_drained()

    def reset(self, code: int = CANCEL) -> None:
        """Break the stream off. Idempotent."""
        if self._error is None and not (self.input_ended and self.output_ended):
            self._connection.put_reset(self.number, code)
            self.fail(StreamReset(code))

    def _check_output(self) -> None:
        if self._error is not None:
            raise self._error
        if self.output_ended:
            raise StreamReset(STREAM_CLOSED)

    def _end_output(self) -> None:
        self.output_ended = True
        self._forget_if_done()

    def _forget_if_done(self) -> None:
        if self.input_ended and self.output_ended:
            self._connection.forget(self)

    # --- for the connection -------------------------------------------------------------------------------------

    def wake(self) -> None:
        self._changed.set()

    def take_data(self, data: memoryview, size: int, *, end: bool) -> None:
        """Take what came in a frame of `size` bytes. Raises: ProtocolFault."""
        self._owed += size
        if self._owed > STREAM_WINDOW + FRAME_SIZE:
            raise ProtocolFault(FLOW_CONTROL_ERROR, "more data than the window of a stream")
        self._input += data
        if end:
            self.take_end()
        self._changed.set()

    def take_end(self) -> None:
        self.input_ended = True
        self._changed.set()
        self._forget_if_done()

    def take_window(self, more: int) -> bool:
        self._window += more
        self._changed.set()
        return self._window <= MAX_WINDOW

    def take_headers(self, headers: Headers, *, end: bool) -> None:
        if not self.headers:
            self.headers = headers
            if end:
                self.trailers = headers
        elif end:
            self.trailers = headers
        if end:
            self.take_end()
        self._changed.set()

    def fail(self, error: StreamReset) -> None:
        """End the stream; whoever reads, writes or serves it hears of it."""
        if self._error is None and not (self.input_ended and self.output_ended):
            self._error = error
            self._changed.set()
            self._connection.forget(self)
            if self.task is not None and not self.output_ended:
                self.task.cancel()

    @property
    def held(self) -> int:
        """Count the bytes of the connection's window that this stream still owes."""
        return self._owed
