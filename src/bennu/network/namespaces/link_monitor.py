"""Reads the kernel's notifications of links and addresses (rtnetlink(7)), so no interface has to be polled."""

import contextlib
import errno
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR = 0x1, 0x10, 0x100
RTM_NEWLINK, RTM_DELLINK, RTM_DELADDR = 16, 17, 21
IFLA_IFNAME, IFLA_MASTER = 3, 10
IFF_UP: Final = 1
SO_RCVBUFFORCE: Final = 33
RECEIVE_BUFFER_BYTES: Final = 4 << 20  # a container's start or end is a dozen messages; hundreds fit between two reads
HEADER: Final = struct.Struct("=IHHII")
LINK: Final = struct.Struct("=BxHiII")
ADDRESS: Final = struct.Struct("=BBBBi")
ATTRIBUTE: Final = struct.Struct("=HH")


@dataclass(frozen=True, slots=True)
class LinkEvent:
    """An interface as the latest notification shows it."""

    is_there: bool
    is_up: bool = False
    master: int = 0  # index of the bridge whose port it is, 0 = none


@dataclass(slots=True)
class LinkChanges:
    """Changes since the last read. `missed`: notifications were lost (ENOBUFS), so anything may have changed."""

    links: dict[str, LinkEvent] = field(default_factory=dict)
    lost_addresses: set[int] = field(default_factory=set)  # indexes of interfaces
    missed: bool = False


class LinkMonitor:
    """Listens in the network namespace of the thread that opens it."""

    def __init__(self) -> None:
        self._sock: socket.socket | None = None

    def open(self) -> None:
        """Subscribe to links and addresses of both families. Raises: OSError; then nothing is open."""
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
            sock.bind((0, RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR))
        except BaseException:
            sock.close()
            raise
        self._sock = sock

    def close(self) -> None:
        """Unsubscribe. Idempotent."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def read_changes(self, *, missed: bool = False) -> LinkChanges:
        """Return all that changed since the last call; does not block. Raises: OSError.

        `missed`: the caller did not act on an earlier answer; so it is if the monitor is not open.
        """
        found = LinkChanges(missed=missed or self._sock is None)
        while self._sock is not None:
            try:
                apply_message(self._sock.recv(65536), found)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                found.missed = True
        return found


def apply_message(datagram: bytes, changes: LinkChanges) -> None:
    """Add the notifications in one netlink datagram to the changes."""
    position = 0
    while position + HEADER.size <= len(datagram):
        length, kind, *_ = HEADER.unpack_from(datagram, position)
        body, end = position + HEADER.size, position + length
        if kind in (RTM_NEWLINK, RTM_DELLINK):
            family, _, _, flags, _ = LINK.unpack_from(datagram, body)
            if family == socket.AF_UNSPEC:  # other families describe a part only, such as a port that leaves its bridge
                _apply_link(changes, datagram[body + LINK.size : end], kind == RTM_NEWLINK, bool(flags & IFF_UP))
        elif kind == RTM_DELADDR:
            changes.lost_addresses.add(ADDRESS.unpack_from(datagram, body)[4])
        position += max(HEADER.size, length + 3 & ~3)


def _apply_link(changes: LinkChanges, attributes: bytes, is_there: bool, is_up: bool) -> None:
    name, master = "", 0
    for kind, value in _attributes(attributes):
        if kind == IFLA_IFNAME:
            name = value.rstrip(b"\0").decode(errors="replace")
        elif kind == IFLA_MASTER:
            (master,) = struct.unpack("=I", value)
            break  # the name comes first
    changes.links[name] = LinkEvent(is_there, is_up, master)


def _attributes(text: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position + ATTRIBUTE.size <= len(text):
        length, kind = ATTRIBUTE.unpack_from(text, position)
        yield kind, text[position + ATTRIBUTE.size : position + length]
        position += max(ATTRIBUTE.size, length + 3 & ~3)
