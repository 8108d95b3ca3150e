"""Address arithmetic, pure: which subnet a new network gets, which address a new endpoint.

A `AddressPool` never answers an address twice before it was given back. What is allocated is not kept on disk: after a
crash the book is filled again from the sandboxes that live, which is the truth.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

from bennu.errors import BennuError, Forbidden

Subnet = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

# dockerd's local default pools: (from which range, networks of which prefix length).
DEFAULT_POOLS: Final[Sequence[tuple[str, int]]] = (
    ("172.17.0.0/16", 16),
    ("172.18.0.0/16", 16),
    ("172.19.0.0/16", 16),
    ("172.20.0.0/14", 16),
    ("172.24.0.0/14", 16),
    ("172.28.0.0/14", 16),
    ("192.168.0.0/16", 20),
)
IPV6_PREFIX: Final = 64


class NoFreeSubnet(BennuError):
    """All default pools are in use."""


class NoFreeAddress(BennuError):
    """A network is full."""


class AddressTaken(Forbidden):
    """Somebody has the address that was asked for, or it is set aside."""


def choose_subnet(used: Iterable[Subnet], pools: Iterable[tuple[str, int]] = DEFAULT_POOLS) -> IPv4Network:
    """The first network of the pools that overlaps nothing in `used`. Raises: NoFreeSubnet."""
    taken = [subnet for subnet in used if isinstance(subnet, IPv4Network) and subnet.prefixlen > 0]
    for base, prefix_len in pools:
        for candidate in IPv4Network(base).subnets(new_prefix=prefix_len):
            if not any(candidate.overlaps(subnet) for subnet in taken):
                return candidate
    raise NoFreeSubnet("all predefined address pools have been fully subnetted")


def choose_ipv6_subnet(used: Iterable[Subnet], global_id: bytes) -> IPv6Network:
    """A /64 of the unique local range under the 40-bit `global_id` that overlaps nothing. Raises: NoFreeSubnet."""
    taken = [subnet for subnet in used if isinstance(subnet, IPv6Network) and subnet.prefixlen > 0]
    base = IPv6Network((bytes([0xFD]) + global_id[:5] + bytes(10), 48))
    for candidate in base.subnets(new_prefix=IPV6_PREFIX):
        if not any(candidate.overlaps(subnet) for subnet in taken):
            return candidate
    raise NoFreeSubnet("all predefined address pools have been fully subnetted")


def overlapping(subnet: Subnet, used: Iterable[Subnet]) -> Subnet | None:
    """The first of `used` that shares an address with `subnet`; default routes do not count."""
    for other in used:
        if other.version == subnet.version and other.prefixlen > 0 and subnet.overlaps(other):
            return other
    return None


def first_host(subnet: Subnet) -> Address:
    """Where the gateway lives unless the client says otherwise."""
    return subnet.network_address + (0 if subnet.num_addresses == 1 else 1)


def mac_of(address: str) -> str:
    """Docker's classic rule: 02:42 and the four bytes of the IPv4 address."""
    return ":".join(f"{byte:02x}" for byte in b"\x02\x42" + IPv4Address(address).packed)


@dataclass(slots=True)
class AddressPool:
    """The addresses of one subnet. `reserved` (gateway, auxiliary, network and broadcast) are never allocated."""

    subnet: Subnet
    range: Subnet  # where free addresses are looked for; within `subnet`
    reserved: set[Address] = field(default_factory=set)
    allocated: set[Address] = field(default_factory=set)

    @classmethod
    def of(cls, subnet: str, gateway: str, ip_range: str = "", aux: Iterable[str] = ()) -> "AddressPool":
        net = ipaddress.ip_network(subnet, strict=False)
        reserved = {ipaddress.ip_address(text) for text in (gateway, *aux) if text}
        if net.num_addresses > 2:
            reserved.add(net.network_address)
            if net.version == 4:
                reserved.add(net.broadcast_address)
        return cls(net, ipaddress.ip_network(ip_range, strict=False) if ip_range else net, reserved)

    def allocate(self) -> str:
        """The lowest free address. Raises: NoFreeAddress (with no words: the caller knows the network)."""
        first = int(self.range.network_address)
        for number in range(first, first + self.range.num_addresses):
            address = type(self.range.network_address)(number)
            if address not in self.allocated and address not in self.reserved:
                self.allocated.add(address)
                return str(address)
        raise NoFreeAddress("no available addresses")

    def allocate_exactly(self, wanted: str) -> str:
        """The address asked for, which is one of this subnet. Raises: AddressTaken."""
        address = ipaddress.ip_address(wanted)
        if address in self.allocated or address in self.reserved:
            raise AddressTaken("Address already in use")
        self.allocated.add(address)
        return str(address)

    def adopt(self, address: str) -> None:
        """What a living sandbox holds is allocated, whatever the rules say now."""
        self.allocated.add(ipaddress.ip_address(address))

    def release(self, address: str) -> None:
        self.allocated.discard(ipaddress.ip_address(address))
