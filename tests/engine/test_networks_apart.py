"""Who reaches whom: packets that are sent, forged ones too, and the list of those that arrive.

Every attempt carries its own name and all are sent before anybody looks, so a test is a table: what arrived is what
may, nothing else; and what may shows that the sender's packets were good.
"""

import contextlib
import itertools
import os
import socket
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
from network_helpers import Host, inside, make, needs_network, on, open_host, start

from bennu.network import PortRequest, Sandbox

pytestmark = needs_network
PORT = 7  # of every receiver; what is published is published to it
ALL = "0.0.0.0"
SETTLE_S = 0.3
BROADCAST = b"\xff" * 6


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    async with open_host(tmp_path) as opened:
        yield opened


class Receivers:
    """Datagram sockets in several namespaces, and what they heard."""

    def __init__(self) -> None:
        self._sockets: dict[str, socket.socket] = {}

    def listen(self, name: str, netns: str, port: int = PORT, address: str = ALL) -> None:
        made = inside(netns, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        made.bind((address, port))
        made.setblocking(False)
        self._sockets[name] = made

    def heard(self) -> set[str]:
        """`attempt → receiver` for each datagram since the last question."""
        time.sleep(SETTLE_S)
        found = set()
        for name, sock in self._sockets.items():
            with contextlib.suppress(BlockingIOError):
                while True:
                    found.add(f"{sock.recv(200).decode()} → {name}")
        return found

    def close(self) -> None:
        for sock in self._sockets.values():
            sock.close()


@pytest.fixture
def receivers() -> Iterator[Receivers]:
    made = Receivers()
    yield made
    made.close()


def send(netns: str, attempt: str, address: str, port: int = PORT, source: str = "") -> None:
    """As any program does; that there is no way to go is fine."""
    with inside(netns, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        if source:
            sock.bind((source, 0))
        with contextlib.suppress(OSError):
            sock.sendto(attempt.encode(), (address, port))


def forge(netns: str, attempt: str, source: str, target: str, port: int = PORT, *, to: bytes, link: str) -> None:
    """A frame as it pleases us, put on the wire of an interface: no routing table and no check of ours is asked."""
    data = attempt.encode()
    udp = struct.pack("!HHHH", 4000, port, 8 + len(data), 0) + data
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, *map(socket.inet_aton, (source, target))
    )
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    with inside(netns, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) as sock:
        sock.bind((link, 0))
        sock.send(to + sock.getsockname()[4] + b"\x08\x00" + head + udp)


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def mac_of(netns: str, link: str) -> bytes:
    text = inside(netns, lambda: subprocess.run(["ip", "-br", "link", "show", link], capture_output=True, text=True))
    return bytes.fromhex(text.stdout.split()[2].replace(":", ""))


def address(sandbox: Sandbox) -> str:
    return sandbox.endpoints[0].ip_address


def gateway(sandbox: Sandbox) -> str:
    return sandbox.endpoints[0].gateway


def bridge_of(host: Host, sandbox: Sandbox) -> bytes:
    """The address of the bridge that a container's frames go to, when they go anywhere but to their own kind."""
    link = Path("/sys/class/net", sandbox.endpoints[0].host_interface, "master").resolve().name
    return mac_of("", link)


def published(port: int, address: str = "") -> PortRequest:
    return PortRequest(container_port=PORT, proto="udp", host_ip=address, host_port_first=port, host_port_last=port)


@contextlib.contextmanager
def nobody_checks_sources() -> Iterator[None]:
    """Reverse path filters off, as where an administrator needs it: nothing below leans on them."""
    knobs = [knob for knob in Path("/proc/sys/net/ipv4/conf").glob("*/rp_filter") if knob.read_text().strip() != "0"]
    before = [knob.read_text() for knob in knobs]
    for knob in knobs:
        knob.write_text("0")
    try:
        yield
    finally:
        for knob, text in zip(knobs, before, strict=True):
            with contextlib.suppress(FileNotFoundError):
                knob.write_text(text)


async def test_a_neighbour_on_the_wire_reaches_published_ports_and_nothing_else(
    host: Host, receivers: Receivers
) -> None:
    everywhere, local = host.free_port("udp"), host.free_port("udp")
    quiet = await start(host, "quiet", on("bridge", "quiet"))
    web = await start(host, "web", on("bridge", "web"), ports=(published(everywhere), published(local, "127.0.0.1")))
    receivers.listen("quiet", quiet.netns)
    receivers.listen("web", web.netns)
    receivers.listen("host's loopback", "", 7790, "127.0.0.1")
    with host.neighbour() as wire, nobody_checks_sources():
        there = mac_of("", f"nb{os.getpid()}")
        send(wire, "published", host.neighbour_gateway, everywhere)
        send(wire, "local port", host.neighbour_gateway, local)
        send(wire, "routed", address(quiet))
        send(wire, "routed to a published one", address(web))
        for name, source, target, port in (
            ("own", host.neighbour_address, host.neighbour_gateway, everywhere),
            ("as a container", address(web), address(quiet), PORT),
            ("as the bridge", gateway(quiet), address(quiet), PORT),
            ("as loopback", "127.0.0.1", address(quiet), PORT),
            ("loopback's port", host.neighbour_address, "127.0.0.1", local),
            ("any port by loopback", host.neighbour_address, "127.0.0.1", everywhere),
            ("loopback itself", host.neighbour_address, "127.0.0.1", 7790),
            ("loopback to loopback", "127.0.0.1", "127.0.0.1", 7790),
        ):
            forge(wire, f"forged {name}", source, target, port, to=there, link="wire")
        assert receivers.heard() == {"published → web", "forged own → web"}


async def test_a_network_is_closed_to_the_containers_of_another(host: Host, receivers: Receivers) -> None:
    await make(host, "net1")
    await make(host, "net2")
    port = host.free_port("udp")
    a = await start(host, "a", on("net1", "a"))
    b = await start(host, "b", on("net2", "b"))
    c = await start(host, "c", on("net2", "c"), ports=(published(port),))
    d = await start(host, "d", on("net1", "d"))
    for name, box in {"b": b, "c": c, "d": d}.items():
        receivers.listen(name, box.netns)
    receivers.listen("host's loopback", "", 7791, "127.0.0.1")
    with nobody_checks_sources():
        send(a.netns, "own network", address(d))
        send(a.netns, "published", gateway(a), port)
        send(a.netns, "routed", address(b))
        send(a.netns, "published, its own address", address(c))
        out = bridge_of(host, a)
        for name, source, target, number in (
            ("own", address(a), address(b), PORT),
            ("as one of theirs", address(c), address(b), PORT),
            ("as their gateway", gateway(b), address(b), PORT),
            ("to the host's loopback", address(a), "127.0.0.1", 7791),
            ("published by loopback", address(a), "127.0.0.1", port),
        ):
            forge(a.netns, f"forged {name}", source, target, number, to=out, link="eth0")
            forge(a.netns, f"shouted {name}", source, target, number, to=BROADCAST, link="eth0")
        assert receivers.heard() == {"own network → d", "published → c"}


async def test_an_internal_network_reaches_only_itself_and_its_host(host: Host, receivers: Receivers) -> None:
    await make(host, "inner", internal=True)
    port = host.free_port("udp")
    a = await start(host, "a", on("inner", "a"))
    b = await start(host, "b", on("inner", "b"))
    web = await start(host, "web", on("bridge", "web"), ports=(published(port),))
    bridge = Path("/sys/class/net", a.endpoints[0].host_interface, "master").resolve().name
    shown = subprocess.run(["ip", "-4", "-br", "addr", "show", bridge], capture_output=True, text=True, check=True)
    own = shown.stdout.split()[2].partition("/")[0]
    receivers.listen("b", b.netns)
    receivers.listen("web", web.netns)
    receivers.listen("host", "", 7792, own)
    receivers.listen("host's loopback", "", 7792, "127.0.0.1")
    with host.neighbour() as wire, nobody_checks_sources():
        receivers.listen("neighbour", wire)
        inside(a.netns, lambda: subprocess.run(["ip", "route", "add", "default", "via", own], check=True))
        send(a.netns, "own network", address(b))
        send(a.netns, "its host", own, 7792)
        send("", "control", host.neighbour_address)
        out = bridge_of(host, a)
        for name, target, number in (
            ("outside", host.neighbour_address, PORT),
            ("another network", address(web), PORT),
            ("a published port", host.own_address(), port),
            ("a port on its bridge", own, port),
            ("loopback", "127.0.0.1", 7792),
        ):
            send(a.netns, f"to {name}", target, number)
            for source in (address(a), address(web)):
                forge(a.netns, f"forged to {name}", source, target, number, to=out, link="eth0")
        there = mac_of("", f"nb{os.getpid()}")
        send(wire, "from outside", address(b))
        forge(wire, "forged from outside", address(a), address(b), to=there, link="wire")
        forge(web.netns, "from another network", address(a), address(b), to=bridge_of(host, web), link="eth0")
        assert receivers.heard() == {"own network → b", "its host → host", "control → neighbour"}


async def test_without_icc_no_frame_goes_from_container_to_container(host: Host, receivers: Receivers) -> None:
    await make(host, "quiet", options={"com.docker.network.bridge.enable_icc": "false"})
    port = host.free_port("udp")
    a = await start(host, "a", on("quiet", "a"))
    b = await start(host, "b", on("quiet", "b"))
    c = await start(host, "c", on("quiet", "c"), ports=(published(port),))
    for name, box in {"b": b, "c": c}.items():
        receivers.listen(name, box.netns)
    with nobody_checks_sources():
        send(a.netns, "published", gateway(a), port)
        send(a.netns, "direct", address(b))
        send(a.netns, "direct to a published one", address(c))
        for way, to in {
            "straight": mac_of(b.netns, "eth0"),
            "hairpin": bridge_of(host, a),
            "shouted": BROADCAST,
        }.items():
            for source in (address(a), address(c), gateway(a)):
                forge(a.netns, f"{way} from {source}", source, address(b), to=to, link="eth0")
        assert receivers.heard() == {"published → c"}


async def test_a_published_port_is_taken_for_every_program_of_the_host(host: Host) -> None:
    web = await start(host, "web", on("bridge", "web"), ports=(PortRequest(container_port=PORT),))
    port = web.ports[0].host_port
    own = [ALL, "127.0.0.1", "127.0.0.2", host.own_address(), gateway(web), "::", "::1"]
    options = [(), (socket.SO_REUSEADDR,), (socket.SO_REUSEPORT,), (socket.SO_REUSEADDR, socket.SO_REUSEPORT)]
    for where, chosen in itertools.product(own, options):
        hold(where, 0, chosen)
        with pytest.raises(OSError, match="Address already in use"):
            hold(where, port, chosen)


def hold(where: str, port: int, options: Sequence[int]) -> None:
    """Listen there for a moment, with everything that lets two listen at the same place."""
    with socket.socket(socket.AF_INET6 if ":" in where else socket.AF_INET) as sock:
        for option in options:
            sock.setsockopt(socket.SOL_SOCKET, option, 1)
        if ":" in where:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((where, port))
        sock.listen()
