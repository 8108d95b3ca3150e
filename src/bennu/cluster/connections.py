"""Sockets of a task, read from its network namespace: does it listen, and how many connections has it still got."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LISTEN: Final = 0x0A
UNCONNECTED: Final = 0x07
# Established, being established, and closed by one side only: the answer may still be on its way.
OPEN: Final = frozenset({0x01, 0x03, 0x04, 0x08, 0x09, 0x0B})
SYN_SENT: Final = 0x02
NETLINK_SOCK_DIAG: Final = 4
SOCK_DIAG_BY_FAMILY: Final = 20
SOCK_DESTROY: Final = 21
SOCKID_SIZE: Final = 48
NLM_F_REQUEST_ACK: Final = 0x5
NLM_F_REQUEST_DUMP: Final = 0x301
LOOPBACK4: Final = "7F"  # the last byte of the little-endian address
LOOPBACK6: Final = "00000000000000000000000001000000"


async def is_listening(pid: int, ports: Collection[int]) -> bool | None:
    """Whether all the TCP ports accept connections from outside; None when it cannot be seen."""
    sockets = await asyncio.to_thread(read_sockets, pid)
    if sockets is None:
        return None
    open_ports = {port for port, state, local in sockets if state == LISTEN and not local}
    return set(ports) <= open_ports


@dataclass(frozen=True, slots=True)
class Sockets:
    """What a task has to do with others: open connections to ports it serves, and whether it waits for datagrams."""

    connections: int
    takes_datagrams: bool


async def look_at_sockets(pid: int, ports: Collection[int]) -> Sockets | None:
    """`ports` are served as well as those it listens on; None when nothing can be seen."""

    def look() -> Sockets | None:
        tcp, udp = read_sockets(pid), read_sockets(pid, "udp")
        if tcp is None:
            return None
        served = {*ports, *(port for port, state, local in tcp if state == LISTEN and not local)}
        return Sockets(
            sum(1 for port, state, local in tcp if state in OPEN and port in served and not local),
            any(state == UNCONNECTED and not local for _, state, local in udp or ()),
        )

    return await asyncio.to_thread(look)


def read_sockets(pid: int, proto: str = "tcp") -> list[tuple[int, int, bool]] | None:
    """(local port, state, bound to loopback) of every socket of a protocol in the namespace of a process. Blocks."""
    found: list[tuple[int, int, bool]] = []
    for name in (proto, f"{proto}6"):
        try:
            text = Path(f"/proc/{pid}/net/{name}").read_text()
        except OSError:
            if name == proto:
                return None
            continue
        found += parse_sockets(text)
    return found


def parse_sockets(text: str) -> list[tuple[int, int, bool]]:
    """The lines of /proc/net/tcp, tcp6, udp and udp6."""
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 4:
            continue
        address, _, port = fields[1].partition(":")
        local = address == LOOPBACK6 or (len(address) == 8 and address.endswith(LOOPBACK4))
        found.append((int(port, 16), int(fields[3], 16), local))
    return found


async def count_connecting(ips: Collection[str], ports: Collection[int]) -> int:
    """Sockets of this host that wait for their first answer from there: its queue was full, and they will try again."""

    def count() -> int:
        try:
            return sum(one.ip in ips and one.port in ports for one in connecting())
        except OSError:  # nobody is seen, then nobody is waited for
            return 0

    return await asyncio.to_thread(count)


async def give_up_connecting(ips: Collection[str]) -> None:
    """End those that wait for an answer from there: nobody will give it, or somebody else who has the address then.

    Their connect() fails (ECONNABORTED). Best effort: kernels without CONFIG_INET_DIAG_DESTROY cannot.
    """

    def give_up() -> None:
        with contextlib.suppress(OSError), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as sock:
            sock.settimeout(1)
            for one in [one for one in connecting() if one.ip in ips]:
                sock.send(_request(SOCK_DESTROY, NLM_F_REQUEST_ACK, one.identity))
                sock.recv(4096)  # the acknowledgement, or the reason why not

    await asyncio.to_thread(give_up)


@dataclass(frozen=True, slots=True)
class Connecting:
    """A TCP socket of this network namespace that has no answer yet, by whom it wants to reach by IPv4."""

    ip: str
    port: int
    identity: bytes  # a struct inet_diag_sockid


def connecting() -> Iterator[Connecting]:
    """Blocks. Raises: OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as sock:
        sock.settimeout(1)
        sock.send(_request(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST_DUMP, bytes(SOCKID_SIZE)))
        while True:
            answer = sock.recv(65536)
            position = 0
            while position < len(answer):
                length, kind = struct.unpack_from("=IH", answer, position)
                if kind != SOCK_DIAG_BY_FAMILY:  # the end, or the reason why not
                    return
                identity = answer[position + 20 : position + 20 + SOCKID_SIZE]
                (port,) = struct.unpack_from(">H", identity, 2)
                yield Connecting(socket.inet_ntoa(identity[20:24]), port, identity)
                position += length + 3 & ~3


def _request(kind: int, flags: int, identity: bytes) -> bytes:
    """A struct inet_diag_req_v2 in its netlink message."""
    body = struct.pack("=BBBxI", socket.AF_INET, socket.IPPROTO_TCP, 0, 1 << SYN_SENT) + identity
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body
