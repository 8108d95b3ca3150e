"""Forwards published IPv6 ports in user space where the kernel cannot translate: dockerd's docker-proxy, in-process.

Two cases: the container has only an IPv4 address, or a client on the host calls `::1` (IPv6 has no `route_localnet`).
The sockets that hold such ports listen, and connections and datagrams are copied. All else is translated in the
kernel and never comes here. While the daemon is away these two cases are refused.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from bennu.descriptors import is_spare
from bennu.network.acceptor import Acceptor

CHUNK: Final = 256 * 1024
MAX_CONNECTIONS_PER_CONTAINER: Final = 4096  # TCP connections or UDP clients
UDP_IDLE_S: Final = 90.0
DATAGRAMS_PER_WAKEUP: Final = 64


@dataclass(frozen=True, slots=True)
class ProxyRoute:
    """A listening socket, which stays its holder's, and the address of a container to forward to."""

    listener: socket.socket
    target_ip: str
    target_port: int


@dataclass(slots=True)
class _ContainerProxy:
    routes: Sequence[ProxyRoute]
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    clients: dict[tuple[socket.socket, Any], "_UdpClient"] = field(default_factory=dict)
    acceptors: list[Acceptor] = field(default_factory=list)


class UserlandProxy:
    """The routes of all containers, by container id (or service id, for the ports of services)."""

    def __init__(self) -> None:
        self._proxies: dict[str, _ContainerProxy] = {}

    def set(self, container_id: str, routes: Sequence[ProxyRoute]) -> None:
        """Forward exactly these routes from now on. Raises: OSError."""
        self.stop(container_id)
        if not routes:
            return
        proxy = self._proxies[container_id] = _ContainerProxy(routes)
        loop = asyncio.get_running_loop()
        for route in routes:
            route.listener.setblocking(False)
            if route.listener.type == socket.SOCK_STREAM:
                route.listener.listen(128)
                proxy.acceptors.append(Acceptor(route.listener, _accept_handler(proxy, route)))
            else:
                loop.add_reader(route.listener, self._receive, proxy, route)

    def pause(self, container_id: str) -> None:
        """Accept no new connections; open ones go on. `set` or `stop` ends this. Idempotent."""
        proxy = self._proxies.get(container_id)
        for acceptor in proxy.acceptors if proxy else ():
            acceptor.stop()
        for route in proxy.routes if proxy else ():
            if route.listener.type == socket.SOCK_STREAM:
                with contextlib.suppress(OSError):
                    route.listener.shutdown(socket.SHUT_RDWR)  # it stays bound but no longer listens

    def stop(self, container_id: str) -> None:
        """End all connections and routes; the listening sockets stay open. Idempotent."""
        proxy = self._proxies.pop(container_id, None)
        if proxy is None:
            return
        for acceptor in proxy.acceptors:
            acceptor.stop()
        for route in proxy.routes:
            asyncio.get_running_loop().remove_reader(route.listener)
        for task in proxy.tasks:
            task.cancel()
        for client in list(proxy.clients.values()):
            client.close()

    def close(self) -> None:
        """End all connections and routes."""
        for container_id in list(self._proxies):
            self.stop(container_id)

    def _receive(self, proxy: _ContainerProxy, route: ProxyRoute) -> None:
        for _ in range(DATAGRAMS_PER_WAKEUP):
            try:
                data, peer = route.listener.recvfrom(65535)
            except OSError:
                return
            client = proxy.clients.get((route.listener, peer))
            if client is None and len(proxy.clients) < MAX_CONNECTIONS_PER_CONTAINER:
                client = _UdpClient(proxy, route, peer)
                _track(proxy, client.run())
            if client is not None:
                client.send(data)


def _accept_handler(proxy: _ContainerProxy, route: ProxyRoute) -> Callable[[socket.socket], None]:
    def take(connection: socket.socket) -> None:
        if len(proxy.tasks) >= MAX_CONNECTIONS_PER_CONTAINER:
            connection.close()
            return
        _track(proxy, _forward_tcp(connection, route))

    return take


def _track(proxy: _ContainerProxy, work: Any) -> None:
    task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
    proxy.tasks.add(task)
    task.add_done_callback(proxy.tasks.discard)


async def _forward_tcp(connection: socket.socket, route: ProxyRoute) -> None:
    """Copy one TCP connection until both directions have ended."""
    reader, writer = await asyncio.open_connection(sock=connection)
    try:
        there_reader, there_writer = await asyncio.open_connection(route.target_ip, route.target_port)
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
    """Reset the connection (SO_LINGER 0), so the client sees a failure instead of an end."""
    connection = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()


class _UdpClient(asyncio.DatagramProtocol):
    """One client of a UDP port, with its own socket towards the container; ends after 90 s of silence."""

    def __init__(self, proxy: _ContainerProxy, route: ProxyRoute, peer: Any) -> None:
        self._proxy = proxy
        self._route = route
        self._peer = peer
        self._transport: asyncio.DatagramTransport | None = None
        self._early: list[bytes] = []
        self._heard = time.monotonic()
        proxy.clients[route.listener, peer] = self

    async def run(self) -> None:
        """Connect to the container, send what came meanwhile, and return after the silence."""
        target = (self._route.target_ip, self._route.target_port)
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
        """Send a datagram of the client to the container."""
        self._heard = time.monotonic()
        if self._transport is None:
            self._early.append(data)
        else:
            self._transport.sendto(data)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._heard = time.monotonic()
        with contextlib.suppress(OSError):
            self._route.listener.sendto(data, self._peer)

    def close(self) -> None:
        self._proxy.clients.pop((self._route.listener, self._peer), None)
        if self._transport is not None:
            self._transport.close()
