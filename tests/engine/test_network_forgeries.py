"""What a container sends under a false name reaches nothing of the host."""

import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest
from network_helpers import Host, inside, make, needs_network, on, open_host, start

from bennu.host import sysctl
from bennu.network.creation import IpamConfig

pytestmark = needs_network
UDP = 17


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    async with open_host(tmp_path) as opened:
        yield opened


@contextlib.contextmanager
def listener(address: str) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((address, 0))
        sock.settimeout(0.5)
        yield sock


def heard(sock: socket.socket) -> set[str]:
    """Whom a service has heard."""
    found = set()
    with contextlib.suppress(TimeoutError):
        while True:
            found.add(sock.recvfrom(100)[1][0])
    return found


def send_as(interface: str, gateway_mac: str, source: str, target: str, port: int) -> None:
    """One datagram by UDP in a frame of our own making, as NET_RAW allows."""
    body = b"forged"  # an even number of bytes
    if ":" in source:
        ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, target)
        head = struct.pack(">IHBB", 6 << 28, 8 + len(body), UDP, 64) + ends
        kind = 0x86DD
    else:
        ends = socket.inet_aton(source) + socket.inet_aton(target)
        head = struct.pack(">BBHHHBBH", 0x45, 0, 28 + len(body), 0, 0, 64, UDP, 0) + ends
        head = head[:10] + struct.pack(">H", checksum(head)) + head[12:]
        kind = 0x0800
    datagram = struct.pack(">HHHH", 9, port, 8 + len(body), 0) + body
    if ":" in source:
        pseudo = ends + struct.pack(">IxxxB", len(datagram), UDP)
        datagram = datagram[:6] + struct.pack(">H", checksum(pseudo + datagram)) + datagram[8:]
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((interface, 0))
        own = sock.getsockname()[4]
        sock.send(bytes.fromhex(gateway_mac.replace(":", "")) + own + struct.pack(">H", kind) + head + datagram)


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


async def test_services_of_the_host_hear_nothing_that_claims_to_come_from_its_loopback(host: Host) -> None:
    network = await make(
        host, "six", IpamConfig(subnet="10.217.1.0/24"), IpamConfig(subnet="fd00:217::/64"), enable_ipv6=True
    )
    sandbox = await start(host, "a", on("six", "a"))
    endpoint = sandbox.endpoints[0]
    for knob in ("all", network.bridge):
        sysctl.write(f"ipv4/conf/{knob}/rp_filter", "0")  # as many distributions have it
    mac = Path("/sys/class/net", network.bridge, "address").read_text().strip()
    for address, sources in (
        (endpoint.gateway, ("127.0.0.1", "127.1.2.3", "127.255.255.254", endpoint.ip_address)),
        (endpoint.ipv6_gateway, ("::1", "::ffff:127.0.0.1", endpoint.ipv6_address)),
    ):
        with listener(address) as service:
            port = service.getsockname()[1]
            for source in sources:
                inside(sandbox.netns, partial(send_as, "eth0", mac, source, address, port))
            assert heard(service) == {sources[-1]}, "only what tells the truth"
