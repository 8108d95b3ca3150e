"""Reads and writes the streams of a running container through conmon's attach socket.

conmon sends what the container writes to every attached client, one after the other, and *waits* for each: while one
does not take its share, nobody gets anything, the container's pipe fills and it stops. So what arrives is taken at
once and kept here until the client reads it, up to a limit. Beyond it the container is slowed to the pace of its
client, as with any pipe; a client that takes nothing at all for a while is cut off.
"""

import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bennu.kernel.descriptor_io import DescriptorWriter

KEPT_BYTES: Final = 4 << 20
STUCK_AFTER_S: Final = 5.0
CONNECT_TRIES: Final = 500
CONNECT_PAUSE_S: Final = 0.02
PACKET_BYTES: Final = 8193  # conmon's: one byte says which stream, then up to 8192 of it
_STREAMS: Final = {2: 1, 3: 2}  # conmon's numbers → stdout, stderr


async def connect_attach(bundle: Path) -> socket.socket:
    """Connect to conmon. Raises: OSError (FileNotFoundError, ConnectionRefusedError) if nobody listens."""
    for _ in range(CONNECT_TRIES):
        with contextlib.suppress(BlockingIOError):
            return _connect(bundle)
        await asyncio.sleep(CONNECT_PAUSE_S)  # its queue is full: it waits for a client
    raise ConnectionRefusedError("conmon does not answer")


def _connect(bundle: Path) -> socket.socket:
    folder = os.open(bundle, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            # Through the descriptor: a socket's path may have 107 bytes only, a bundle's any number.
            sock.setblocking(False)
            sock.connect(f"/proc/self/fd/{folder}/attach")
        except BaseException:
            sock.close()
            raise
    finally:
        os.close(folder)
    return sock


class AttachStream:
    """One client of a container's streams, for one reader and one writer task; made and used in the event loop.

    `cut` tells after the end that it came because this client did not read.
    """

    def __init__(self, sock: socket.socket, stdin: DescriptorWriter | None, end_stdin: Callable[[], None]) -> None:
        """Attach one client; `stdin` None: the container takes no input.

        `end_stdin` is called when this client has no more input.
        """
        self._sock = sock
        self._stdin = stdin
        self._end_stdin = end_stdin
        self._loop = asyncio.get_running_loop()
        self._kept: deque[tuple[int, bytes]] = deque()
        self._kept_bytes = 0
        self._ended = False
        self._closed = False
        self._reading = False
        self._stuck_timer: asyncio.TimerHandle | None = None
        self._arrived = asyncio.Event()
        self.cut = False
        self._resume()

    # --- output ---------------------------------------------------------------------------------------------------

    async def read(self) -> tuple[int, bytes] | None:
        """Wait for the next (stream, bytes); 1 is stdout or the terminal, 2 is stderr. None: there is no more."""
        while not self._kept:
            if self._ended:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        stream, data = self._kept.popleft()
        self._kept_bytes -= len(data)
        if self._stuck_timer is not None:
            self._stuck_timer.cancel()
            self._stuck_timer = None
        if not self._ended and not self._reading and self._kept_bytes < KEPT_BYTES // 2:
            self._resume()
        elif not self._ended and not self._reading:
            self._start_stuck_timer()
        return stream, data

    def _resume(self) -> None:
        self._reading = True
        self._loop.add_reader(self._sock, self._take)

    def _pause(self) -> None:
        if self._reading:
            self._loop.remove_reader(self._sock)
            self._reading = False

    def _take(self) -> None:
        """Take what is there, many packets at once, but let others have a turn."""
        for _ in range(64):
            try:
                packet = self._sock.recv(PACKET_BYTES)
            except (BlockingIOError, InterruptedError):
                break
            except ConnectionResetError:
                continue  # said once when conmon left input unread; what it sent is still there
            except OSError:
                packet = b""
            if not packet:
                self._finish()
                break
            self._kept.append((_STREAMS.get(packet[0], 1), packet[1:]))
            self._kept_bytes += len(packet) - 1
        if self._kept_bytes >= KEPT_BYTES and not self._ended:
            self._pause()
            self._start_stuck_timer()
        if self._kept:
            self._arrived.set()

    def _start_stuck_timer(self) -> None:
        self._stuck_timer = self._loop.call_later(STUCK_AFTER_S, self._give_up)

    def _give_up(self) -> None:
        self.cut = True
        self._finish()

    def _finish(self) -> None:
        """Note that no more will come; what is kept can still be read."""
        self._ended = True
        self._pause()
        if self._stuck_timer is not None:
            self._stuck_timer.cancel()
            self._stuck_timer = None
        if self._stdin is not None:
            self._stdin.close()
        self._sock.close()
        self._arrived.set()

    # --- input ----------------------------------------------------------------------------------------------------

    async def write(self, data: bytes) -> None:
        """Write to the container's stdin; waits while it is full. A container without stdin ignores it.

        Raises: OSError when the container will not read any more, or this stream was closed.
        """
        if self._stdin is not None:
            await self._stdin.write(data)

    async def close_stdin(self) -> None:
        """Note that this client has no more input; ends the container's stdin if that is to end with its client."""
        if self._stdin is not None:
            self._stdin.close()
            self._stdin = None
            self._end_stdin()

    def close(self) -> None:
        """Disconnect. Idempotent; the container does not notice, and a waiting reader gets None."""
        if self._closed:
            return
        self._closed = True
        self._kept.clear()
        self._kept_bytes = 0
        self._finish()
        self._stdin = None
