"""Accepts connections of containers and clients, of whom there may be any number, without using up descriptors."""

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from typing import Final

from bennu.descriptors import EXHAUSTED, is_spare

ACCEPTS_PER_WAKEUP: Final = 16  # then the event loop serves others
PAUSE_S: Final = 0.5  # without descriptors; clients wait in the kernel's queue meanwhile
LOG_EVERY_S: Final = 60.0
log = logging.getLogger(__name__)


class Acceptor:
    """Hands each connection of a listening, non-blocking socket to `handle`, which owns it from then on."""

    _warned_at = -LOG_EVERY_S  # of all acceptors: when the last warning was logged

    def __init__(self, listener: socket.socket, handle: Callable[[socket.socket], None]) -> None:
        self._listener = listener
        self._handle = handle
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._loop.add_reader(listener, self._accept)

    def stop(self) -> None:
        """Accept no more; to be called before the socket is closed. Idempotent."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_WAKEUP):
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in EXHAUSTED:
                    self._warn(error.strerror or "")
                    self._loop.remove_reader(self._listener)
                    self._pause = self._loop.call_later(PAUSE_S, self._loop.add_reader, self._listener, self._accept)
                    return
                continue  # the client has closed it already
            if is_spare(connection.fileno()):
                connection.setblocking(False)
                self._handle(connection)
            else:
                connection.close()
                self._warn("the last descriptors are kept back")

    @classmethod
    def _warn(cls, why: str) -> None:
        now = time.monotonic()
        if now - cls._warned_at >= LOG_EVERY_S:
            cls._warned_at = now
            log.warning("connections of containers and of clients by IPv6 are refused: %s", why)
