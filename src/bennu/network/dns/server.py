"""The embedded DNS: 127.0.0.11 inside each sandbox on a user-defined network, served from the daemon's loop.

Names of containers and services are answered at once (`names.py`); other queries are forwarded (`forwarder.py`): to the
host's servers from the host's namespace, where those on its loopback can be asked too; to servers that a container
names (`--dns`) from its own. dockerd's is in moby, libnetwork/resolver.go.
"""

import asyncio
import contextlib
import logging
import random
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from bennu.network.acceptor import Acceptor
from bennu.network.dns.files import EMBEDDED_DNS
from bennu.network.dns.forward_limiter import ForwardLimiter, ForwardQuota
from bennu.network.dns.forwarder import MAX_MESSAGE, DnsForwarder
from bennu.network.dns.names import REVERSE_ZONES, NameIndex
from bennu.network.dns.sockets import Sockets, open_inside
from bennu.network.model import Sandbox
from bennu.network.namespaces.netns import in_own_thread

TTL_S: Final = 5  # short, because containers come and go
DATAGRAMS_PER_WAKEUP: Final = 64
TCP_IDLE_S: Final = 10.0
MAX_CONNECTIONS_PER_SANDBOX: Final = 16  # by TCP; each is a descriptor of the daemon
MAX_CONNECTIONS: Final = 256
Peer = tuple[Any, ...]
log = logging.getLogger(__name__)


@dataclass(slots=True)
class DnsClient:
    """One sandbox that sends queries."""

    sandbox: Sandbox
    udp: socket.socket
    tcp: socket.socket
    acceptor: Acceptor | None = None
    tasks: set[asyncio.Task[None]] = field(default_factory=set)  # queries by UDP that are being forwarded
    quota: ForwardQuota = field(default_factory=ForwardQuota)


class NameServer:
    """Serves all sandboxes of the daemon, by container id."""

    def __init__(
        self,
        index: Callable[[], NameIndex],
        default_servers: Callable[[], Sequence[str]],
        forwarder: DnsForwarder | None = None,
    ) -> None:
        self._index = index
        self._default_servers = default_servers
        self._forwarder = forwarder or DnsForwarder()
        self._clients: dict[str, DnsClient] = {}
        self._limiter = ForwardLimiter()
        self._connections: dict[asyncio.Task[None], DnsClient] = {}  # oldest first

    def serves(self, container_id: str) -> bool:
        """Check that the container's sandbox is served."""
        return container_id in self._clients

    async def serve(self, container_id: str, sandbox: Sandbox, sockets: Sockets | None = None) -> None:
        """Begin to serve a sandbox, on sockets opened ahead or on the port it had before; the port is noted in it.

        The sockets are the server's from now on.

        Raises: OSError.
        """
        self.stop(container_id)
        if sockets is None:
            sockets = await in_own_thread(lambda: open_inside(sandbox.netns, sandbox.resolver.port))
        udp, tcp = sockets
        sandbox.resolver.port = udp.getsockname()[1]
        client = self._clients[container_id] = DnsClient(sandbox, udp, tcp)
        asyncio.get_running_loop().add_reader(udp, self._read_datagrams, client)
        client.acceptor = Acceptor(tcp, lambda connection: self._accept(client, connection))

    def stop(self, container_id: str) -> None:
        """Stop serving the sandbox and close its sockets and connections. Idempotent."""
        client = self._clients.pop(container_id, None)
        if client is None:
            return
        asyncio.get_running_loop().remove_reader(client.udp)
        client.udp.close()
        if client.acceptor is not None:
            client.acceptor.stop()
        client.tcp.close()
        for task in client.tasks:
            task.cancel()
        for task in [task for task, owner in self._connections.items() if owner is client]:
            self._end_connection(task)

    def close(self) -> None:
        """Stop serving all sandboxes."""
        for container_id in list(self._clients):
            self.stop(container_id)

    def _read_datagrams(self, client: DnsClient) -> None:
        for _ in range(DATAGRAMS_PER_WAKEUP):
            try:
                wire, peer = client.udp.recvfrom(MAX_MESSAGE)
            except OSError:
                return
            answer = self.answer_now(client.sandbox, wire, tcp=False)
            if answer is not None:
                _send(client.udp, answer, peer)
                continue
            task = asyncio.get_running_loop().create_task(self._forward_datagram(client, wire, peer))
            client.tasks.add(task)
            task.add_done_callback(client.tasks.discard)

    async def _forward_datagram(self, client: DnsClient, wire: bytes, peer: Peer) -> None:
        answer = await self._forward(client, wire, tcp=False)
        if client.udp.fileno() >= 0:
            _send(client.udp, answer, peer)

    def _accept(self, client: DnsClient, connection: socket.socket) -> None:
        """Serve one more TCP connection. At the limit the oldest one is closed, so a new client is always served."""
        its_own = [task for task, owner in self._connections.items() if owner is client]
        if len(its_own) >= MAX_CONNECTIONS_PER_SANDBOX:
            self._end_connection(its_own[0])
        elif len(self._connections) >= MAX_CONNECTIONS:
            self._end_connection(next(iter(self._connections)))
        task = asyncio.get_running_loop().create_task(self._serve_connection(client, connection))
        self._connections[task] = client
        task.add_done_callback(lambda task: self._ended(task, connection))

    def _end_connection(self, task: "asyncio.Task[None]") -> None:
        del self._connections[task]
        task.cancel()

    def _ended(self, task: "asyncio.Task[None]", connection: socket.socket) -> None:
        self._connections.pop(task, None)
        if task.cancelled():
            connection.close()

    async def _serve_connection(self, client: DnsClient, connection: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=connection)
        try:
            with contextlib.suppress(EOFError, OSError, TimeoutError):
                while answer := await self._answer_next(client, reader):
                    writer.write(struct.pack("!H", len(answer)) + answer)
                    await writer.drain()
        except asyncio.CancelledError:
            writer.transport.abort()  # at once, whatever the other side has not read yet
            raise
        finally:
            writer.close()

    async def _answer_next(self, client: DnsClient, reader: asyncio.StreamReader) -> bytes:
        """Read one query and return its answer; b"" ends the connection. Raises: EOFError, OSError, TimeoutError."""
        async with asyncio.timeout(TCP_IDLE_S):
            (size,) = struct.unpack("!H", await reader.readexactly(2))
            wire = await reader.readexactly(size)
        answer = self.answer_now(client.sandbox, wire, tcp=True)
        return await self._forward(client, wire, tcp=True) if answer is None else answer

    def answer_now(self, sandbox: Sandbox, wire: bytes, *, tcp: bool) -> bytes | None:
        """Answer a query without asking others. None: it has to be forwarded; b"": it gets no answer."""
        try:
            query = dns.message.from_wire(wire)
        except dns.exception.DNSException:
            return _malformed(wire)
        if query.flags & dns.flags.QR:
            return b""
        response = dns.message.make_response(query, recursion_available=True)
        if query.opcode() != dns.opcode.QUERY or len(query.question) != 1:
            response.set_rcode(dns.rcode.NOTIMP)
            return _wire(query, response, tcp)
        if not self._fill(sandbox, query.question[0], response):
            return None
        return _wire(query, response, tcp)

    def _fill(self, sandbox: Sandbox, question: dns.rrset.RRset, response: dns.message.Message) -> bool:
        """Fill in what is known of containers and services; False if the query has to be forwarded."""
        name = question.name.to_text(omit_final_dot=True)
        index = self._index()
        if name.lower().endswith(REVERSE_ZONES):
            pointer = index.find_pointer(sandbox, name)
            if pointer is None:
                return False
            if question.rdtype in (dns.rdatatype.PTR, dns.rdatatype.ANY):
                _add(response, question.name, dns.rdatatype.PTR, [f"{pointer}."])
            return True
        found = index.find(sandbox, name)
        if not found:
            if found is None and ("." in name or question.name == dns.name.root):
                return False
            # Nobody else can know a bare name, or a service of ours; asking only costs the client time.
            response.set_rcode(dns.rcode.NXDOMAIN)
            return True
        if question.rdclass == dns.rdataclass.IN:
            found = random.sample(found, len(found))
            v4 = [address for address in found if ":" not in address]
            v6 = [address for address in found if ":" in address]
            for kind, addresses in ((dns.rdatatype.A, v4), (dns.rdatatype.AAAA, v6)):
                if addresses and question.rdtype in (kind, dns.rdatatype.ANY):
                    _add(response, question.name, kind, addresses)
        return True

    async def _forward(self, client: DnsClient, wire: bytes, *, tcp: bool) -> bytes:
        sandbox = client.sandbox
        if not any(endpoint.gateway or endpoint.ipv6_gateway for endpoint in sandbox.endpoints):
            return _failed(wire)
        asked = sandbox.resolver.servers
        # Whoever names this server itself as the one to be asked would have it ask itself.
        servers = [server for server in asked if server != EMBEDDED_DNS] if asked else self._default_servers()
        netns = sandbox.netns if asked else ""
        known = self._forwarder.cached(servers, wire, tcp=tcp, netns=netns)
        if known is not None:
            return known
        try:
            async with self._limiter.slot(client.quota):
                return await self._forwarder.ask(servers, wire, tcp=tcp, netns=netns) or _failed(wire)
        except TimeoutError:
            return _failed(wire)


def _add(
    response: dns.message.Message, name: dns.name.Name, kind: dns.rdatatype.RdataType, values: Sequence[str]
) -> None:
    response.answer.append(dns.rrset.from_text_list(name, TTL_S, "IN", kind, list(dict.fromkeys(values))))


def _wire(query: dns.message.Message, response: dns.message.Message, tcp: bool) -> bytes:
    limit = MAX_MESSAGE if tcp else max(512, query.payload if query.edns >= 0 else 512)
    return response.to_wire(max_size=limit, prefer_truncation=True)


def _malformed(wire: bytes) -> bytes:
    """Make a FORMERR answer with the query's id; b"" if the bytes have none or are an answer themselves."""
    if len(wire) < 12 or wire[2] & 0x80:
        return b""
    return wire[:2] + bytes([0x80 | wire[2] & 0x79, 0x80 | dns.rcode.FORMERR]) + bytes(8)


def _failed(wire: bytes) -> bytes:
    """Make a SERVFAIL answer to a well-formed query."""
    response = dns.message.make_response(dns.message.from_wire(wire), recursion_available=True)
    response.set_rcode(dns.rcode.SERVFAIL)
    return response.to_wire()


def _send(sock: socket.socket, answer: bytes, peer: Peer) -> None:
    if answer:
        with contextlib.suppress(OSError):  # the asker's loss; it will ask again
            sock.sendto(answer, peer)
