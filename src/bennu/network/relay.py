"""Published IPv6 ports that the kernel cannot translate, carried by the daemon itself.

Two cases: the container has only an IPv4 address, and a client on the host calls `::1` (there is no
`route_localnet` for IPv6). The sockets that hold such ports listen, and what comes in is passed on. Everything else
is translated in the kernel and never comes here. While the daemon is away these two cases are refused.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from bennu.descriptors import is_spare
from bennu.network.accepting import Acceptor

CHUNK: Final = 256 * 1024
AT_ONCE: Final = 4096  # connections, or clients by UDP, of one container
UDP_IDLE_S: Final = 90.0
DATAGRAMS_A_TURN: Final = 64


@dataclass(frozen=True, slots=True)
class Passage:
    """From a held socket to an address in a container."""

    held: socket.socket
    target_ip: str
    target_port: int


@dataclass(slots=True)
class _Relay:
    passages: Sequence[Passage]
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    clients: dict[tuple[socket.socket, Any], "_UdpClient"] = field(default_factory=dict)
    acceptors: list[Acceptor] = field(default_factory=list)


class Relays:
    """The passages of all containers."""

    def __init__(self) -> None:
        self._relays: dict[str, _Relay] = {}

    def set(self, container_id: str, passages: Sequence[Passage]) -> None:
        """Carry exactly these from now on. Raises: OSError."""
        self.stop(container_id)
        if not passages:
            return
        relay = self._relays[container_id] = _Relay(passages)
        loop = asyncio.get_running_loop()
        for passage in passages:
            passage.held.setblocking(False)
            if passage.held.type == socket.SOCK_STREAM:
                passage.held.listen(128)
                relay.acceptors.append(Acceptor(passage.held, _taker(relay, passage)))
            else:
                loop.add_reader(passage.held, self._receive, relay, passage)

    def pause(self, container_id: str) -> None:
        """Take no new connection; those that are carried go on. `set` or `stop` ends this. Idempotent."""
        relay = self._relays.get(container_id)
        for acceptor in relay.acceptors if relay else ():
            acceptor.stop()
        for passage in relay.passages if relay else ():
            if passage.held.type == socket.SOCK_STREAM:
                with contextlib.suppress(OSError):
                    passage.held.shutdown(socket.SHUT_RDWR)  # stays bound, and listens no longer

    def stop(self, container_id: str) -> None:
        """End what is carried; the sockets stay their holder's. Idempotent."""
        relay = self._relays.pop(container_id, None)
        if relay is None:
            return
        for acceptor in relay.acceptors:
            acceptor.stop()
        for passage in relay.passages:
            asyncio.get_running_loop().remove_reader(passage.held)
        for task in relay.tasks:
            task.cancel()
        for client in list(relay.clients.values()):
            client.close()

    def close(self) -> None:
        for container_id in list(self._relays):
            self.stop(container_id)

    def _receive(self, relay: _Relay, passage: Passage) -> None:
        for _ in range(DATAGRAMS_A_TURN):
            try:
                data, peer = passage.held.recvfrom(65535)
            except OSError:
                return
            client = relay.clients.get((passage.held, peer))
            if client is None and len(relay.clients) < AT_ONCE:
                client = _UdpClient(relay, passage, peer)
                _own(relay, client.run())
            if client is not None:
                client.send(data)


def _taker(relay: _Relay, passage: Passage) -> Callable[[socket.socket], None]:
    def take(connection: socket.socket) -> None:
        if len(relay.tasks) >= AT_ONCE:
            connection.close()
            return
        _own(relay, _carry(connection, passage))

    return take


def _own(relay: _Relay, work: Any) -> None:
    task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
    relay.tasks.add(task)
    task.add_done_callback(relay.tasks.discard)


async def _carry(connection: socket.socket, passage: Passage) -> None:
    """One TCP connection, to the end of both directions."""
    reader, writer = await asyncio.open_connection(sock=connection)
    try:
        there_reader, there_writer = await asyncio.open_connection(passage.target_ip, passage.target_port)
    except OSError:
        _reset(writer)
        return
    try:
        await asyncio.gather(_pump(reader, there_writer), _pump(there_reader, writer))
    except OSError:
        _reset(writer)
    finally:
        writer.close()
        there_writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Tell the client that it failed, not that it ended."""
    connection = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()


class _UdpClient(asyncio.DatagramProtocol):
    """One peer of a UDP port, with a socket of its own towards the container, until it is silent for a while."""

    def __init__(self, relay: _Relay, passage: Passage, peer: Any) -> None:
        self._relay = relay
        self._passage = passage
        self._peer = peer
        self._transport: asyncio.DatagramTransport | None = None
        self._early: list[bytes] = []
        self._heard = time.monotonic()
        relay.clients[passage.held, peer] = self

    async def run(self) -> None:
        target = (self._passage.target_ip, self._passage.target_port)
        try:
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, remote_addr=target)
            self._transport = transport
            if not is_spare(transport.get_extra_info("socket").fileno()):
                return
            for data in self._early:
                transport.sendto(data)
            rest_s = UDP_IDLE_S
            while rest_s > 0:
                await asyncio.sleep(rest_s)
                rest_s = self._heard + UDP_IDLE_S - time.monotonic()
        except OSError:
            return
        finally:
            self.close()

    def send(self, data: bytes) -> None:
        self._heard = time.monotonic()
        if self._transport is None:
            self._early.append(data)
        else:
            self._transport.sendto(data)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._heard = time.monotonic()
        with contextlib.suppress(OSError):
            self._passage.held.sendto(data, self._peer)

    def close(self) -> None:
        self._relay.clients.pop((self._passage.held, self._peer), None)
        if self._transport is not None:
            self._transport.close()
