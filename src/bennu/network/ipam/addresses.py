"""Address arithmetic, pure: which subnet a new network gets, which address a new endpoint.

An `AddressPool` never allocates an address twice before it is released. Allocations are not stored: after a crash the
pools are filled again from the sandboxes that live (`adopt`), which are the truth.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

from bennu.errors import BennuError, Forbidden

Subnet = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

# dockerd's local default pools: (range, prefix length of the networks taken from it). moby, libnetwork/ipamutils/
# utils.go, localScopeDefaultNetworks; test_the_default_pools_are_dockers_thirty_one.
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
    """The address asked for is allocated, or reserved."""


def choose_subnet(used: Iterable[Subnet], pools: Iterable[tuple[str, int]] = DEFAULT_POOLS) -> Subnet:
    """Choose the first network of the pools, all of one family, that overlaps nothing in `used`.

    Raises: NoFreeSubnet.
    """
    taken = list(used)
    for base, prefix_len in pools:
        for candidate in ipaddress.ip_network(base).subnets(new_prefix=prefix_len):
            if overlapping(candidate, taken) is None:
                return candidate
    raise NoFreeSubnet("all predefined address pools have been fully subnetted")


def local_ipv6_pool(global_id: bytes) -> tuple[str, int]:
    """Return the pool of the unique local prefix with this 40-bit global id (RFC 4193), for networks of a /64."""
    return str(IPv6Network((bytes([0xFD]) + global_id[:5] + bytes(10), 48))), IPV6_PREFIX


def overlapping(subnet: Subnet, used: Iterable[Subnet]) -> Subnet | None:
    """Return the first of `used` that shares an address with `subnet`; default routes do not count."""
    for other in used:
        if other.version == subnet.version and other.prefixlen > 0 and subnet.overlaps(other):
            return other
    return None


def mac_of(address: str) -> str:
    """Derive a MAC address: 02:42 and the last four bytes of the address, which are all of an IPv4 address.

    moby, libnetwork/netutils, GenerateMACFromIP; `test_the_mac_address_is_dockers`.
    """
    return ":".join(f"{byte:02x}" for byte in b"\x02\x42" + ipaddress.ip_address(address).packed[-4:])


@dataclass(slots=True)
class AddressPool:
    """The addresses of one subnet. `reserved` ones (gateway, auxiliary, network, broadcast) are never allocated."""

    subnet: Subnet
    range: Subnet  # free addresses are taken from here; lies within `subnet`
    reserved: set[Address] = field(default_factory=set)
    allocated: set[Address] = field(default_factory=set)

    @classmethod
    def of(cls, subnet: str, gateway: str, ip_range: str = "", aux: Iterable[str] = ()) -> "AddressPool":
        """Make an empty pool; all arguments are in text form, `aux` are auxiliary addresses."""
        net = ipaddress.ip_network(subnet, strict=False)
        reserved = {ipaddress.ip_address(text) for text in (gateway, *aux) if text}
        if net.num_addresses > 2:
            reserved.add(net.network_address)
            if net.version == 4:
                reserved.add(net.broadcast_address)
        return cls(net, ipaddress.ip_network(ip_range, strict=False) if ip_range else net, reserved)

    def allocate(self) -> str:
        """Allocate the lowest free address. Raises: NoFreeAddress (the caller adds the network's name)."""
        first = int(self.range.network_address)
        for number in range(first, first + self.range.num_addresses):
            address = type(self.range.network_address)(number)
            if address not in self.allocated and address not in self.reserved:
                self.allocated.add(address)
                return str(address)
        raise NoFreeAddress("no available addresses")

    def allocate_exactly(self, wanted: str) -> str:
        """Allocate this address, which must be of this subnet. Raises: AddressTaken."""
        address = ipaddress.ip_address(wanted)
        if address in self.allocated or address in self.reserved:
            raise AddressTaken("Address already in use")
        self.allocated.add(address)
        return str(address)

    def adopt(self, address: str) -> None:
        """Count the address of a living sandbox as allocated, also where it is reserved by now."""
        self.allocated.add(ipaddress.ip_address(address))

    def release(self, address: str) -> None:
        """Make the address free again. Idempotent."""
        self.allocated.discard(ipaddress.ip_address(address))


def choose_gateway(subnet: Subnet, ip_range: str = "", aux: Iterable[str] = ()) -> str:
    """Choose the gateway's address unless the client names another: the lowest that an endpoint could get.

    Raises: NoFreeAddress.
    """
    return AddressPool.of(str(subnet), "", ip_range, aux).allocate()
