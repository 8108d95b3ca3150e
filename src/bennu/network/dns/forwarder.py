"""Forwards DNS queries to other name servers: by UDP or TCP, one server after the other, with a small cache."""

import asyncio
import contextlib
import errno
import os
import secrets
import socket
import struct
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype

from bennu.descriptors import is_spare
from bennu.network.namespaces.netns import enter, in_own_thread

ASK_TIMEOUT_S: Final = 2.0
ROUNDS: Final = 2
CACHE_ENTRIES: Final = 1024
MAX_CACHED_S: Final = 30.0  # cached answers keep their TTL, so clients may keep them this much too long
ENTERING: Final = 4  # sockets opened in containers at a time: each takes a thread and a second descriptor meanwhile
MAX_MESSAGE: Final = 65535
TRY_ANOTHER: Final = frozenset({dns.rcode.SERVFAIL, dns.rcode.REFUSED})


class DnsForwarder:
    """Forwards from the daemon's network namespace, so the host's loopback resolvers can be asked too.

    Servers that a container names itself are asked from its own namespace (`netns`): they are where it is.
    """

    def __init__(self, port: int = 53) -> None:
        self._port = port  # of all servers; tests have one of their own
        self._entering = asyncio.Semaphore(ENTERING)
        self._cache: OrderedDict[tuple[str, tuple[str, ...], bool, bytes], tuple[float, bytes]] = OrderedDict()

    def cached(self, servers: Sequence[str], wire: bytes, *, tcp: bool, netns: str = "") -> bytes | None:
        """Return the cached answer to the query `wire`, with its id, while the answer's TTL lasts."""
        key = (netns, tuple(servers), tcp, wire[2:])
        kept = self._cache.get(key)
        if kept is None or kept[0] <= time.monotonic():
            return None
        self._cache.move_to_end(key)
        return wire[:2] + kept[1][2:]

    async def ask(self, servers: Sequence[str], wire: bytes, *, tcp: bool, netns: str = "") -> bytes | None:
        """Ask the servers in order, twice; return the first good answer to the query `wire`, or None.

        SERVFAIL and REFUSED count as answers only when no other server has a better one.
        """
        answer = self.cached(servers, wire, tcp=tcp, netns=netns)  # somebody may have asked the same meanwhile
        if answer is None and (answer := await self._ask_all(servers, wire, tcp, netns)) is not None:
            self._store((netns, tuple(servers), tcp, wire[2:]), answer)
        return answer

    def _store(self, key: tuple[str, tuple[str, ...], bool, bytes], answer: bytes) -> None:
        lifetime = min(lifetime_s(answer), MAX_CACHED_S)
        if lifetime > 0:
            self._cache[key] = (time.monotonic() + lifetime, answer)
            while len(self._cache) > CACHE_ENTRIES:
                self._cache.popitem(last=False)

    async def _ask_all(self, servers: Sequence[str], wire: bytes, tcp: bool, netns: str) -> bytes | None:
        refused: bytes | None = None
        for server in [*servers] * ROUNDS:
            try:
                async with asyncio.timeout(ASK_TIMEOUT_S):
                    sock, address = await self._open(server, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM, netns)
                    with contextlib.closing(sock):
                        answer = await (ask_tcp if tcp else ask_udp)(sock, address, wire)
            except (TimeoutError, OSError, EOFError):
                continue
            if answer[3] & 0x0F not in TRY_ANOTHER:
                return answer
            refused = refused or answer
        return refused

    async def _open(self, server: str, kind: socket.SocketKind, netns: str) -> tuple[socket.socket, Any]:
        """Open a socket for `server` in the namespace behind `netns` ("": our own); return both socket and address.

        Raises: OSError; EMFILE before the last descriptors of the daemon are used, since containers ask at will.
        """
        family, _, _, _, address = socket.getaddrinfo(server, self._port, type=kind, flags=socket.AI_NUMERICHOST)[0]
        if netns:
            async with self._entering:
                sock = await in_own_thread(lambda: _open_inside(netns, family, kind))
        else:
            sock = socket.socket(family, kind)
        if not is_spare(sock.fileno()):
            sock.close()
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        sock.setblocking(False)
        return sock, address


class _Question(asyncio.DatagramProtocol):
    def __init__(self, wire: bytes, answer: "asyncio.Future[bytes]") -> None:
        self._wire = wire
        self._answer = answer

    def datagram_received(self, data: bytes, addr: object) -> None:
        # Same id and same question, or it is not for us: the port is random and so is the id.
        if not self._answer.done() and is_answer_to(self._wire, data):
            self._answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self._answer.done():
            self._answer.set_exception(exc)


async def ask_udp(sock: socket.socket, address: Any, wire: bytes) -> bytes:
    """Ask one server. Waits for ever if it does not answer. Raises: OSError.

    The query goes out with a random id from a random port, against forged answers (RFC 5452).
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[bytes] = loop.create_future()
    sent = secrets.token_bytes(2) + wire[2:]
    sock.connect(address)  # from a port of the kernel's choice, a random one
    transport, _ = await loop.create_datagram_endpoint(lambda: _Question(sent, answer), sock=sock)
    try:
        transport.sendto(sent)
        return wire[:2] + (await answer)[2:]
    finally:
        transport.abort()


async def ask_tcp(sock: socket.socket, address: Any, wire: bytes) -> bytes:
    """Ask one server. Raises: OSError, EOFError."""
    await asyncio.get_running_loop().sock_connect(sock, address)
    reader, writer = await asyncio.open_connection(sock=sock)
    try:
        writer.write(struct.pack("!H", len(wire)) + wire)
        (size,) = struct.unpack("!H", await reader.readexactly(2))
        answer = await reader.readexactly(size)
    finally:
        writer.transport.abort()
    if not is_answer_to(wire, answer):
        raise OSError("an answer to another question")
    return answer


def _open_inside(netns: str, family: int, kind: socket.SocketKind) -> socket.socket:
    """Open a socket in a namespace. Only in a thread of its own. Raises: OSError."""
    enter(netns)
    return socket.socket(family, kind)


def is_answer_to(question: bytes, answer: bytes) -> bool:
    """Check id, QR flag and question section (RFC 1035, 4.1); only an error may come without the question."""
    if len(answer) < 12 or answer[:2] != question[:2] or not answer[2] & 0x80:
        return False
    if answer[4:6] == b"\0\0":  # an error without the question
        return answer[3] & 0x0F != 0
    end = question_end(question)
    return answer[4:6] == b"\0\1" and answer[12:end].lower() == question[12:end].lower()


def question_end(wire: bytes) -> int:
    """Return the offset behind the first question of a DNS message."""
    position = 12
    while position < len(wire) and wire[position] not in (0,):
        position += wire[position] + 1
    return position + 5


def lifetime_s(answer: bytes) -> float:
    """Return how long an answer may be cached, in seconds: its least TTL; of a negative one its SOA's (RFC 2308).

    0 = not at all.
    """
    try:
        message = dns.message.from_wire(answer, ignore_trailing=True)
    except dns.exception.DNSException:
        return 0.0
    if message.flags & dns.flags.TC or message.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return 0.0
    if message.answer:
        return float(min(rrset.ttl for rrset in message.answer))
    bounds = [
        min(rrset.ttl, rrset[0].minimum) for rrset in message.authority if rrset.rdtype == dns.rdatatype.SOA and rrset
    ]
    return float(min(bounds, default=0))
