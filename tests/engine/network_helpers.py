"""Real namespaces, real sockets: what the network's tests are made of."""

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import dns.message
import dns.query
import pytest
from pyroute2 import IPRoute

from bennu.network import (
    EndpointRequest,
    Network,
    NetworkRequest,
    Networks,
    NetworkSettings,
    PortRequest,
    Sandbox,
)
from bennu.network.creation import IpamConfig, IpamRequest
from bennu.network.namespaces import netns
from bennu.network.namespaces.netlink import list_links, wait_operational
from bennu.store import Store, open_sqlite
from support.traces import programs_of

Result = TypeVar("Result")
TIMEOUT_S = 2.0  # a lost ARP packet on a busy machine costs one second

needs_network = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("nft") is None or shutil.which("ip") is None,
    reason="needs root, nft and ip",
)


def inside(path: str, work: Callable[[], Result]) -> Result:
    """Run it in a namespace; "" = the host's."""
    if not path:
        return work()

    def entered() -> Result:
        netns.enter(path)
        return work()

    return netns.run_in_own_thread(entered)


@contextlib.contextmanager
def echo_server(path: str, address: str, port: int, proto: str = "tcp") -> Iterator[None]:
    """Answers each message with "<own address> heard <peer's address>"."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM
    server = inside(path, lambda: socket.socket(family, kind))
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if proto == "udp" and family == socket.AF_INET:
        server.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO: which of our addresses was asked
    server.bind((address, port))
    server.settimeout(0.1)
    if proto == "tcp":
        server.listen()
    over = threading.Event()
    thread = threading.Thread(target=_serve_tcp if proto == "tcp" else _serve_udp, args=(server, over))
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        server.close()


def _serve_tcp(server: socket.socket, over: threading.Event) -> None:
    while not over.is_set():
        with contextlib.suppress(TimeoutError):
            connection, peer = server.accept()
            with connection:
                connection.sendall(f"{connection.getsockname()[0]} heard {peer[0]}".encode())


def _serve_udp(server: socket.socket, over: threading.Event) -> None:
    while not over.is_set():
        with contextlib.suppress(TimeoutError):
            _, control, _, peer = server.recvmsg(1024, 256)
            own = socket.inet_ntoa(control[0][2][4:8]) if control else server.getsockname()[0]
            server.sendto(f"{own} heard {peer[0]}".encode(), peer)


def exchange(path: str, address: str, port: int, proto: str = "tcp") -> str:
    """What the echo server there says to us. Raises: OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM
    with inside(path, lambda: socket.socket(family, kind)) as client:
        client.settimeout(TIMEOUT_S)
        client.connect((address, port))
        if proto == "udp":
            client.send(b"?")
        answer = client.recv(1024).decode()
        if not answer:
            raise ConnectionResetError("closed without an answer")
        return answer


@dataclass
class Host:
    """A daemon's networks on private roots."""

    root: Path
    store: Store
    networks: Networks
    pristine: object = None
    neighbour_address: str = "198.18.77.2"
    neighbour_gateway: str = "198.18.77.1"
    _ports: set[int] = field(default_factory=set)

    async def reopen(self, known: Mapping[str, Sandbox], **settings: object) -> Networks:
        self.networks.let_go()
        self.networks = make_networks(self.root, self.store, **settings)
        await self.networks.open(known)
        return self.networks

    def own_address(self, family: int = 4) -> str:
        """An address of this host that is not loopback; skips where it has none."""
        kind, far = (socket.AF_INET, "192.0.2.250") if family == 4 else (socket.AF_INET6, "fd00::fa")
        with socket.socket(kind, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((far, 9))
            except OSError:
                pytest.skip(f"this host has no IPv{family} address")
            return str(probe.getsockname()[0])

    def free_port(self, proto: str = "tcp") -> int:
        kind = socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM
        with socket.socket(socket.AF_INET, kind) as probe:
            probe.bind(("0.0.0.0", 0))
            return int(probe.getsockname()[1])

    async def settled(self) -> None:
        """Wait until nothing of what ended is left in the kernel, and the pool is full again."""
        await self.networks.settle()

    def kernel_state(self) -> object:
        """What there is of ours in the kernel, apart from what is kept ready."""
        prepared = self.networks.prepared
        spare = {item.host_interface for item in prepared} | {item.path.name for item in prepared}
        mark = self.networks.interface_prefix
        names = [n for n in netns.run_in_own_thread(list_links) if n.startswith(mark) or n == self.networks.bridge]
        files = [path.name for path in (self.root / "run" / "netns").iterdir()]
        done = subprocess.run(["nft", "list", "table", "inet", self.networks.table], capture_output=True, text=True)
        return sorted(set(names) - spare), sorted(set(files) - spare), done.stdout, programs_of(self.root / "data")

    @contextlib.contextmanager
    def neighbour(self) -> Iterator[str]:
        """A namespace that is another machine on a wire to this host, with a route to all private addresses."""
        with open_neighbour(self.root, self.neighbour_address, self.neighbour_gateway) as path:
            yield path


@contextlib.contextmanager
def open_neighbour(folder: Path, address: str, gateway: str) -> Iterator[str]:
    """As `Host.neighbour`: a namespace pinned in `folder`."""
    name = f"nb{os.getpid()}"
    path = folder / name
    netns.run_in_own_thread(lambda: _make_pinned(path))
    try:
        subprocess.run(["ip", "link", "add", name, "type", "veth", "peer", "name", "wire"], check=True)
        _ip_inside(path, "wire", address)
        subprocess.run(["ip", "addr", "add", f"{gateway}/24", "dev", name], check=True)
        subprocess.run(["ip", "link", "set", name, "up"], check=True)
        inside(str(path), lambda: _route(gateway))
        netns.run_in_own_thread(lambda: _wait_operational(name))
        inside(str(path), lambda: _wait_operational("wire"))
        yield str(path)
    finally:
        subprocess.run(["ip", "link", "del", name], check=False)
        netns.unpin(path)


@contextlib.contextmanager
def pinned_namespace(path: Path) -> Iterator[str]:
    """A namespace pinned at `path`."""
    netns.run_in_own_thread(lambda: _make_pinned(path))
    try:
        yield str(path)
    finally:
        netns.unpin(path)


def _make_pinned(path: Path) -> None:
    netns.enter_new()
    netns.pin(path)


def _move(interface: str, path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        with IPRoute() as ipr:
            ipr.link("set", index=ipr.link_lookup(ifname=interface)[0], net_ns_fd=fd)
    finally:
        os.close(fd)


def _ip_inside(path: Path, interface: str, address: str) -> None:
    netns.run_in_own_thread(lambda: _move(interface, path))
    inside(
        str(path),
        lambda: [
            subprocess.run(["ip", *words.split()], check=True)
            for words in (f"addr add {address}/24 dev {interface}", f"link set {interface} up", "link set lo up")
        ],
    )


def _wait_operational(interface: str) -> None:
    with IPRoute() as ipr:
        wait_operational(ipr, [socket.if_nametoindex(interface)])


def _route(gateway: str) -> None:
    subprocess.run(["ip", "route", "add", "default", "via", gateway], check=True)


def make_networks(root: Path, store: Store, **settings: object) -> Networks:
    return Networks(store, root / "data", root / "run", NetworkSettings(**settings))  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def open_host(root: Path, *, pristine: bool = True, **settings: object) -> AsyncIterator[Host]:
    """Networks on fresh roots; afterwards nothing of them may be left, unless not `pristine`."""
    root.mkdir(exist_ok=True)
    (root / "run" / "netns").mkdir(parents=True)
    (root / "data").mkdir()
    async with open_sqlite(root / "state.db") as store:
        host = Host(root, store, make_networks(root, store, **settings))
        host.pristine = host.kernel_state()
        try:
            await host.networks.open({})
            yield host
        finally:
            await host.networks.close(remove=True)
            left = host.kernel_state()
        assert left == host.pristine or not pristine, "something was left in the kernel"


def run_quietly(*argv: str) -> None:
    """A small program, run to its end. Raises: CalledProcessError."""
    subprocess.run(argv, check=True, capture_output=True)


# --- networks and containers in few words ---


async def make(host: Host, name: str, *configs: IpamConfig, **more: object) -> Network:
    ipam = IpamRequest(config=list(configs)) if configs else None
    return await host.networks.create(NetworkRequest(name=name, ipam=ipam, **more))


def on(network: str, name: str, **more: object) -> EndpointRequest:
    return EndpointRequest(network=network, container_name=name, **more)


def cid(name: str) -> str:
    return (name.encode().hex() + "f" * 64)[:64]


async def start(host: Host, name: str, *endpoints: EndpointRequest, ports: tuple[PortRequest, ...] = ()) -> Sandbox:
    return await host.networks.open_sandbox(cid(name), endpoints, ports)


async def ask(
    sandbox: Sandbox, name: str, kind: str = "A", *, tcp: bool = False, timeout_s: float = 5
) -> dns.message.Message:
    """What 127.0.0.11 answers inside the sandbox."""
    query = dns.message.make_query(name, kind)
    send = dns.query.tcp if tcp else dns.query.udp
    return await asyncio.to_thread(inside, sandbox.netns, lambda: send(query, "127.0.0.11", timeout=timeout_s))


def values(message: dns.message.Message) -> set[str]:
    return {item.to_text() for rrset in message.answer for item in rrset}
