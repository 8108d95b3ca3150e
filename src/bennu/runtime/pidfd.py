"""Waiting for processes that are not our children, without a thread and without polling."""

import asyncio
import contextlib
import errno
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bennu.descriptors import reserve


def open_pidfd(pid: int) -> int:
    """A descriptor of the process, or of the zombie it has become. Raises: ProcessLookupError; OSError.

    While others are in the session or group that bore the number of one that is gone, older kernels answer EINVAL.
    """
    try:
        with reserve():  # to see somebody end
            return os.pidfd_open(pid)
    except OSError as error:
        if error.errno == errno.EINVAL and pid > 0:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from error
        raise


@contextlib.contextmanager
def held(pid: int, is_it: Callable[[int], bool]) -> Iterator[int]:
    """A descriptor of the process of this number, if that is the one that is meant.

    It is looked at once it is held, so that its number cannot go to another in between.
    Raises: ProcessLookupError if it is not; OSError.
    """
    pidfd = open_pidfd(pid)
    try:
        if not is_it(pid):
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        yield pidfd
    finally:
        os.close(pidfd)


async def wait_gone(pid: int) -> None:
    """Return once the process has ended (a zombie has ended). Cancel-safe; returns at once if there is none."""
    with contextlib.suppress(ProcessLookupError), held(pid, lambda _: True) as pidfd:
        await wait_readable(pidfd)


async def wait_readable(descriptor: int) -> None:
    """Return once a read would not block."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(descriptor, _resolve, ready)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)


def _resolve(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


class DescriptorWriter:
    """Writes to a non-blocking pipe or packet socket, in pieces of at most `piece_bytes`."""

    def __init__(self, descriptor: int, piece_bytes: int, *, owned: bool) -> None:
        self._descriptor = descriptor
        self._piece_bytes = piece_bytes
        self._owned = owned
        self._ready: asyncio.Future[None] | None = None

    async def write(self, data: bytes) -> None:
        """Waits while the other side is full. One at a time. Raises: OSError when there is no other side any more."""
        rest = memoryview(data)
        while rest:
            if self._descriptor < 0:
                raise BrokenPipeError("closed")
            try:
                rest = rest[os.write(self._descriptor, rest[: self._piece_bytes]) :]
            except BlockingIOError:
                await self._wait_ready()

    async def _wait_ready(self) -> None:
        loop = asyncio.get_running_loop()
        descriptor = self._descriptor
        self._ready = loop.create_future()
        loop.add_writer(descriptor, _resolve, self._ready)
        try:
            await self._ready
        finally:
            self._ready = None
            if self._descriptor == descriptor:
                loop.remove_writer(descriptor)

    def close(self) -> None:
        """Idempotent; a write under way fails."""
        if self._descriptor < 0:
            return
        descriptor, self._descriptor = self._descriptor, -1
        if self._ready is not None:
            self._ready.get_loop().remove_writer(descriptor)
            _resolve(self._ready)
        if self._owned:
            os.close(descriptor)


def is_alive(pid: int) -> bool:
    """Whether a process runs under this number; a zombie does not. Raises: OSError when it cannot be known."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, IndexError):
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        return stat[stat.rindex(b")") + 2 :].split(None, 1)[0] not in (b"Z", b"X")
    return False


def parent_of(pid: int) -> int:
    """0: there is no such process. Raises: OSError when it cannot be known."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(stat[stat.rindex(b")") + 2 :].split()[1])


def cmdline_of(pid: int) -> set[str]:
    """The arguments a process was started with; none if there is no such process.

    Raises: OSError when it cannot be known, for want of descriptors: it may well live.
    """
    try:
        return set(Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0"))
    except (FileNotFoundError, ProcessLookupError):
        return set()


def find_by_argument(word: str) -> list[int]:
    """All living processes with this argument; looks at every process of the host."""
    pids = [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdecimal()]
    return [pid for pid in pids if word in cmdline_of(pid) and is_alive(pid)]


async def kill_by_argument(pid: int, word: str) -> None:
    """Kill a process that has this argument, and wait until it is gone. Another of that number is left alone."""
    with contextlib.suppress(ProcessLookupError), held(pid, lambda pid: word in cmdline_of(pid)) as pidfd:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        await wait_readable(pidfd)


async def finish(task: "asyncio.Future[Any]") -> None:
    """Wait until it is done, however often the caller is cancelled meanwhile; what came of it is not told."""
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([task])
    if not task.cancelled():
        task.exception()
