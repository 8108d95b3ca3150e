"""Tells the neighbours of a new interface which MAC address has its addresses now.

By gratuitous ARP (RFC 5227, 3) and unsolicited neighbour advertisements (RFC 4861, 7.2.6). Who still knows an earlier
holder of an address by another MAC address would otherwise send to nobody until it doubts, half a minute later.
"""

import fcntl
import ipaddress
import socket
import struct
from dataclasses import dataclass
from typing import Final

from bennu.network.model import Endpoint

ETH_ARP: Final = 0x0806
ETH_IPV6: Final = 0x86DD
ARP_REQUEST: Final = 1
ICMPV6: Final = 58
NEIGHBOUR_ADVERTISEMENT: Final = 136
OVERRIDE: Final = 0x20 << 24  # replaces what the neighbour knows; neither solicited nor from a router
TARGET_LINK_ADDRESS: Final = 2
ALL_NODES: Final = ipaddress.IPv6Address("ff02::1")
BROADCAST: Final = b"\xff" * 6
ALL_NODES_MAC: Final = bytes.fromhex("333300000001")
SIOCGIFHWADDR: Final = 0x8927


@dataclass(frozen=True, slots=True)
class Announcement:
    """An announcement under way: a packet socket in the sandbox's namespace, and what is sent through it."""

    endpoint_id: str
    interface: str
    mac: bytes
    frames: tuple[bytes, ...]
    sock: socket.socket

    def send(self) -> bool:
        """Send all frames once; False if it cannot, or if the interface has another MAC address by now."""
        try:
            asked = fcntl.ioctl(self.sock, SIOCGIFHWADDR, struct.pack("=16s24x", self.interface.encode()))
            if asked[18:24] != self.mac:
                return False
            for frame in self.frames:
                self.sock.send(frame)
        except OSError:
            return False
        return True


def begin(endpoint: Endpoint) -> Announcement | None:
    """Announce an endpoint's addresses once; None if it has none. Only in a thread inside the sandbox's namespace.

    The caller closes the socket, after more of the same if it likes. Raises: OSError.
    """
    mac = bytes.fromhex(endpoint.mac_address.replace(":", "").replace("-", ""))
    frames = frames_of(mac, endpoint.ip_address, endpoint.ipv6_address)
    if not frames or not mac:
        return None
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0)
    announcement = Announcement(endpoint.endpoint_id, endpoint.interface, mac, frames, sock)
    try:
        sock.bind((endpoint.interface, 0))  # protocol 0: it receives nothing
    except BaseException:
        sock.close()
        raise
    announcement.send()
    return announcement


def frames_of(mac: bytes, ipv4: str, ipv6: str) -> tuple[bytes, ...]:
    """Render the Ethernet frames that announce the addresses; "" = none of that family. Pure."""
    arp = [_arp_frame(mac, ipaddress.IPv4Address(ipv4))] if ipv4 else []
    return (*arp, *([_advertisement_frame(mac, ipaddress.IPv6Address(ipv6))] if ipv6 else []))


def _arp_frame(mac: bytes, address: ipaddress.IPv4Address) -> bytes:
    head = struct.pack("!HHBBH", 1, 0x0800, len(mac), 4, ARP_REQUEST)
    body = head + mac + address.packed + bytes(6) + address.packed
    return BROADCAST + mac + struct.pack("!H", ETH_ARP) + body


def _advertisement_frame(mac: bytes, address: ipaddress.IPv6Address) -> bytes:
    option = struct.pack("!BB", TARGET_LINK_ADDRESS, 1) + mac
    body = struct.pack("!I", OVERRIDE) + address.packed + option
    head = struct.pack("!BB", NEIGHBOUR_ADVERTISEMENT, 0)
    pseudo = address.packed + ALL_NODES.packed + struct.pack("!I3xB", 4 + len(body), ICMPV6)
    message = head + struct.pack("!H", checksum(pseudo + head + bytes(2) + body)) + body
    packet = struct.pack("!IHBB", 6 << 28, len(message), ICMPV6, 255) + address.packed + ALL_NODES.packed + message
    return ALL_NODES_MAC + mac + struct.pack("!H", ETH_IPV6) + packet


def checksum(data: bytes) -> int:
    """Compute the Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
