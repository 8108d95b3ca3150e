"""The reading ends of the runs' pipes: `Pipe`, whose container waits, and `Ring`, whose container loses lines."""

import contextlib
import os
import select
import threading
from collections import deque
from collections.abc import Iterator
from typing import Final, Protocol

TURN: Final = 65536  # bytes; what a pipe holds
LAST_TURNS: Final = 64  # enough for any pipe; a container that goes on writing is not waited for


class LineSource(Protocol):
    """Lines of one run. `descriptor` can be read from, for epoll, when there is something to do; `ended`: no more."""

    descriptor: int
    ended: bool
    torn: bytes  # the beginning of a line

    def read(self) -> bytes:
        """Answer whole lines that are there now, none if there are none."""
        ...

    def drain(self) -> Iterator[bytes]:
        """Answer everything that is there now; nothing is read afterwards."""
        ...

    def close(self) -> None:
        """Close the pipe; what it holds stays in it."""
        ...


class Pipe:
    """A pipe that is read when its log can take it."""

    def __init__(self, pipe: int) -> None:
        self.descriptor = pipe
        self.ended = False
        self.torn = b""

    def read(self) -> bytes:
        data = read_now(self.descriptor)
        self.ended = data == b""
        lines, self.torn = cut(self.torn + (data or b""))
        return lines

    def drain(self) -> Iterator[bytes]:
        for _ in range(LAST_TURNS):
            data = read_now(self.descriptor)
            if not data:
                return
            lines, self.torn = cut(self.torn + data)
            yield lines

    def close(self) -> None:
        os.close(self.descriptor)


class Ring:
    """A pipe that a thread reads at once into a bounded store, so that its container never waits for its log."""

    def __init__(self, pipe: int, max_bytes: int) -> None:
        """`max_bytes`: what may be in the store; lines that do not fit are dropped, unless it is empty.

        Raises: OSError, RuntimeError if the host gives no thread; then the pipe is the caller's still.
        """
        self.descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.ended = False
        self.torn = b""
        self._pipe = pipe
        self._max_bytes = max_bytes
        self._kept: deque[bytes] = deque()
        self._bytes = 0
        self._is_over = False
        self._lock = threading.Lock()
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._take, daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            for descriptor in (self._stop, self.descriptor):
                os.close(descriptor)
            raise

    def read(self) -> bytes:
        with self._lock:
            lines = self._kept.popleft() if self._kept else b""
            self._bytes -= len(lines)
            if not self._kept:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self.descriptor)
                self.ended = self._is_over
            return lines

    def drain(self) -> Iterator[bytes]:
        self._end_thread()
        for _ in range(LAST_TURNS):
            data = read_now(self._pipe)
            if not data:
                break
            self._put(data)
        while self._kept:
            yield self.read()

    def close(self) -> None:
        self._end_thread()
        for descriptor in (self._pipe, self._stop, self.descriptor):
            os.close(descriptor)

    def _end_thread(self) -> None:
        if self._thread.is_alive():
            os.eventfd_write(self._stop, 1)
            self._thread.join()

    def _take(self) -> None:
        poll = select.poll()
        poll.register(self._pipe, select.POLLIN)
        poll.register(self._stop, select.POLLIN)
        while all(descriptor != self._stop for descriptor, _ in poll.poll()):
            data = read_now(self._pipe)
            if data:
                self._put(data)
            elif data is not None:
                with self._lock:
                    self._is_over = True
                    os.eventfd_write(self.descriptor, 1)
                return

    def _put(self, data: bytes) -> None:
        lines, self.torn = cut(self.torn + data)
        with self._lock:
            if self._kept and self._bytes + len(lines) > self._max_bytes:
                lines = lines[: lines.rfind(b"\n", 0, max(0, self._max_bytes - self._bytes)) + 1]
            if lines:
                self._kept.append(lines)
                self._bytes += len(lines)
                os.eventfd_write(self.descriptor, 1)


def read_now(pipe: int) -> bytes | None:
    """Read what a pipe holds, at most `TURN`. None: nothing now; empty: nobody can write to it any more."""
    try:
        return os.read(pipe, TURN)
    except BlockingIOError:
        return None


def cut(data: bytes) -> tuple[bytes, bytes]:
    """Split off whole lines from the beginning of the last one."""
    end = data.rfind(b"\n") + 1
    return data[:end], data[end:]
