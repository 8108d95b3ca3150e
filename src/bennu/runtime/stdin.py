"""A container's standard input that is no terminal: a named pipe which stays open without us and can still be closed.

A reader of a pipe sees its end when the last writer has gone. Clients come and go, and so does this daemon, so one
writer must stay: the *keeper*. It must also be possible to give it up, from this daemon or the next. So the keeper is
no descriptor of a process but one *in flight*: sent into a socket whose receiving end conmon has inherited and never
reads. Whoever receives it there and lets go of it has closed the container's standard input.
"""

import array
import contextlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from bennu.kernel.descriptor_io import DescriptorWriter
from bennu.kernel.libc import copy_descriptor


@dataclass(slots=True)
class Keeper:
    """What conmon must inherit (`descriptor`), to be closed here once it has."""

    descriptor: int
    _opened: list[int]

    def close(self) -> None:
        for descriptor in self._opened:
            os.close(descriptor)
        self._opened = []


def make_stdin(path: Path) -> Keeper:
    """Create the pipe at `path` with a keeper in flight. `close` it when conmon runs."""
    os.mkfifo(path, 0o600)
    # Open for both: neither end blocks while it waits for the other, and a reader exists until the container has one.
    both = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sender:
        writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            sender.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [writer]))])
        finally:
            os.close(writer)
    descriptor = receiver.detach()
    return Keeper(descriptor, [both, descriptor])


def drop_keeper(conmon: int, descriptor: int) -> None:
    """Let go of the keeper that conmon, given by a pidfd, holds under `descriptor`. Idempotent.

    Raises: OSError if the kernel refuses (it asks for the right to trace conmon); ProcessLookupError if conmon is gone.
    """
    with socket.socket(fileno=copy_descriptor(conmon, descriptor)) as receiver, contextlib.suppress(BlockingIOError):
        _, ancillary, _, _ = receiver.recvmsg(1, socket.CMSG_SPACE(4), socket.MSG_DONTWAIT)
        for _level, _kind, data in ancillary:
            for received in array.array("i", data):
                os.close(received)


def open_stdin(path: Path) -> DescriptorWriter:
    """Open one client's end of the pipe. Raises: OSError if nothing can read from it any more."""
    return DescriptorWriter(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC), 65536, owned=True)
