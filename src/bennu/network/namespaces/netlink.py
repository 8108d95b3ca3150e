"""Links, addresses and routes through rtnetlink(7). Everything blocks; no policy, no state.

Functions that take an `IPRoute` act in the network namespace in which its thread was when it was made.
"""

import errno
import fcntl
import ipaddress
import os
import socket
import struct
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from socket import AF_INET, AF_INET6
from typing import Any, Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from bennu.host import sysctl
from bennu.network.ipam.addresses import Address, Subnet
from bennu.network.model import Endpoint
from bennu.network.namespaces import announcement, interface_sysctls, netns
from bennu.network.namespaces.announcement import Announcement

MAIN_TABLE: Final = 254
IFA_F_NODAD: Final = 2
IFF_UP: Final = 1
SIOCSIFFLAGS: Final = 0x8914
OPERATIONAL_S: Final = 1.0
HOST_PREFIX: Final = 32
LINK_LOCAL_PREFIX: Final = 16  # of 169.254.0.0/16 (RFC 3927)
LINK_LOCAL_PREFIX6: Final = 64  # of fe80::/64 (RFC 4291)
PREPARED_NAME: Final = "eth0"  # the container's end of the veth pair that a prepared namespace has


def make_namespace(path: Path, host_interface: str) -> None:
    """Make a pinned namespace with loopback up and a veth pair whose host's end is `host_interface` ("": no pair).

    Both ends are down and have no addresses. Only in a thread of its own, which ends inside the namespace.
    Raises: OSError, NetlinkError; then no file is left.
    """
    with IPRoute() as host:  # stays in the host's namespace, where the thread was when it was made
        netns.enter_new()
        netns.pin(path)
        try:
            # An interface without IPv6 addresses of ours must not make itself one; loopback keeps ::1.
            sysctl.write("ipv6/conf/default/disable_ipv6", "1")
            raise_loopback()
            if host_interface:
                netns.enter_own()
                add_veth_pair(host, str(path), host_interface, PREPARED_NAME)
                netns.enter(path)
        except BaseException:
            netns.unpin(path)
            raise


@dataclass(frozen=True, slots=True)
class VethAttachment:
    """An endpoint to be attached to its bridge by a veth pair."""

    endpoint: Endpoint
    bridge: str
    mtu: int
    gateways: tuple[str, ...]  # of the default routes through this interface
    # The bridge passes nothing between two isolated ports, not even what the rules redirect.
    isolated: bool
    has_pair: bool  # the pair exists already, with the container's end named eth0
    announced: bool = False  # neighbours are told of its addresses


def attach(path: str, attachments: Sequence[VethAttachment]) -> list[Announcement]:
    """Attach a namespace to its bridges; packets flow when this returns. Return what was announced, to be repeated.

    Only in a thread of its own, which ends inside the namespace. Raises: OSError, NetlinkError.
    """
    with IPRoute() as ipr:  # stays in the host's namespace, where the thread was when it was made
        ports = set()
        for attachment in attachments:
            if not attachment.has_pair:
                add_veth_pair(ipr, path, attachment.endpoint.host_interface, attachment.endpoint.interface)
            ports |= attach_host_end(ipr, attachment)
        netns.enter(path)
        for attachment in attachments:
            configure_container_end(attachment)
        wait_operational(ipr, ports)
        begun = [announcement.begin(one.endpoint) for one in attachments if one.announced]
        return [one for one in begun if one is not None]


def attach_host_end(ipr: IPRoute, attachment: VethAttachment) -> set[int]:
    """Make the host's end a port of the bridge and set it up; return both indexes. Raises: OSError, NetlinkError."""
    index, bridge_index = require_index(attachment.endpoint.host_interface), require_index(attachment.bridge)
    ipr.link("set", index=index, master=bridge_index, mtu=attachment.mtu)
    # Hairpin mode: a container that calls its own published port gets its packets back through the same bridge port.
    ipr.brport("set", index=index, mode=1, isolated=int(attachment.isolated))
    ipr.link("set", index=index, state="up")
    return {index, bridge_index}


def reattach_host_end(attachment: VethAttachment) -> None:
    """Attach the host's end again after the bridge was made anew. Raises: OSError, NetlinkError."""
    with IPRoute() as ipr:
        attach_host_end(ipr, attachment)


def wait_operational(ipr: IPRoute, indexes: Iterable[int]) -> None:
    """Wait up to a second until these interfaces are operational.

    The kernel starts an interface's queue in a work item after its peer came up. Packets sent before are dropped,
    and a dropped ARP request costs the sender a second.
    """
    deadline = time.monotonic() + OPERATIONAL_S
    for index in indexes:
        while ipr.get_links(index)[0].get_attr("IFLA_OPERSTATE") != "UP" and time.monotonic() < deadline:
            time.sleep(0.001)


def raise_loopback() -> None:
    """Set lo up in this thread's namespace, by ioctl: an `IPRoute` would cost a millisecond. Raises: OSError."""
    with socket.socket(AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("=16sH22x", b"lo", IFF_UP))


def add_veth_pair(ipr: IPRoute, path: str, host_interface: str, interface: str) -> None:
    """Make a veth pair, both ends down, from the host's side; the container's end is in the namespace behind `path`."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        ipr.link("add", ifname=host_interface, kind="veth", peer={"ifname": interface, "net_ns_fd": fd})
    finally:
        os.close(fd)
    interface_sysctls.apply(interface_sysctls.host_veth_sysctls(host_interface))


def configure_container_end(attachment: VethAttachment) -> None:
    """Set addresses and routes of the container's end, from inside, and set it up. Raises: OSError, NetlinkError."""
    endpoint = attachment.endpoint
    with IPRoute() as ipr:
        if attachment.has_pair and endpoint.interface != PREPARED_NAME:
            ipr.link("set", index=require_index(PREPARED_NAME), ifname=endpoint.interface)
        if endpoint.ipv6_address or any(":" in address for address in endpoint.link_local_ips):
            interface_sysctls.apply(interface_sysctls.container_sysctls(endpoint.interface))
        index = require_index(endpoint.interface)
        ipr.link("set", index=index, address=endpoint.mac_address, mtu=attachment.mtu)
        for address, prefix_len in (
            (endpoint.ip_address, endpoint.ip_prefix_len),
            (endpoint.ipv6_address, endpoint.ipv6_prefix_len),
        ):
            if address:
                add_address(ipr, index, address, prefix_len)
        for address in endpoint.link_local_ips:
            add_address(ipr, index, address, LINK_LOCAL_PREFIX6 if ":" in address else LINK_LOCAL_PREFIX)
        interface_sysctls.apply_asked(endpoint.sysctls)
        ipr.link("set", index=index, state="up")
        set_default_routes(ipr, index, attachment.gateways)


def add_address(ipr: IPRoute, index: int, address: str, prefix_len: int) -> None:
    """Add an address to an interface; IPv6 without duplicate address detection. Idempotent."""
    interface = ipaddress.ip_interface(f"{address}/{prefix_len}")
    extra: dict[str, Any] = {"flags": IFA_F_NODAD} if interface.version == 6 else {}
    if interface.version == 4 and prefix_len < 31:
        extra["broadcast"] = str(interface.network.broadcast_address)
    try:
        ipr.addr("add", index=index, address=address, prefixlen=prefix_len, **extra)
    except NetlinkError as error:
        if error.code != errno.EEXIST:
            raise


def add_virtual_address(name: str, address: str) -> None:
    """Let an interface answer ARP for a virtual address, as a /32. Idempotent. Raises: OSError, NetlinkError."""
    with IPRoute() as ipr:
        add_address(ipr, require_index(name), address, HOST_PREFIX)


def remove_virtual_address(name: str, address: str) -> None:
    """Undo `add_virtual_address`. Idempotent. Raises: NetlinkError."""
    with IPRoute() as ipr:
        index = find_index(name)
        if index is not None and (address, HOST_PREFIX) in list_addresses(ipr, index):
            ipr.addr("del", index=index, address=address, prefixlen=HOST_PREFIX)


def set_default_routes(ipr: IPRoute, index: int, gateways: Iterable[str]) -> None:
    """Lead the default route of each gateway's family through the interface. Raises: NetlinkError."""
    for gateway in gateways:
        family = AF_INET6 if ":" in gateway else AF_INET
        ipr.route("replace", family=family, dst="default", gateway=gateway, oif=index)


def set_gateway(interface: str, gateway: str) -> None:
    """Set the default route of the gateway's family, from inside a sandbox. Raises: OSError, NetlinkError."""
    with IPRoute() as ipr:
        set_default_routes(ipr, require_index(interface), [gateway])


def list_addresses(ipr: IPRoute, index: int) -> set[tuple[str, int]]:
    """List (address, prefix length) of an interface; also the link-local one that the kernel gives it."""
    return {(item.get_attr("IFA_ADDRESS"), item["prefixlen"]) for item in ipr.get_addr(index=index)}


def remove_link(name: str) -> None:
    """Delete an interface. Slow: the kernel waits for its last user. Idempotent. Raises: NetlinkError."""
    with IPRoute() as ipr:
        index = find_index(name)
        if index is None:
            return
        try:
            ipr.link("del", index=index)
        except NetlinkError as error:
            if error.code != errno.ENODEV:
                raise


def find_index(name: str) -> int | None:
    """Return the index of an interface in this thread's namespace, None if there is none."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return None


def require_index(name: str) -> int:
    """Return the index of an interface in this thread's namespace. Raises: OSError (ENODEV)."""
    index = find_index(name)
    if index is None:
        raise OSError(errno.ENODEV, "no such interface", name)
    return index


@dataclass(frozen=True, slots=True)
class LinkState:
    """An interface as the kernel has it."""

    index: int
    master: str  # the bridge whose port it is, "" = none
    is_up: bool


def list_links() -> dict[str, LinkState]:
    """List the interfaces of this thread's namespace, by name."""
    with IPRoute() as ipr:
        found = [(link.get_attr("IFLA_IFNAME"), link) for link in ipr.get_links()]
    names = {link["index"]: name for name, link in found}
    return {name: _state_of(link, names.get(link.get_attr("IFLA_MASTER"), "")) for name, link in found}


def read_links(names: Iterable[str]) -> dict[str, LinkState]:
    """Read some interfaces, by name; missing ones are left out. Raises: NetlinkError."""
    found = {}
    with IPRoute() as ipr:
        for name, index in ((name, find_index(name)) for name in names):
            if index is not None:
                link = ipr.get_links(index)[0]
                master = link.get_attr("IFLA_MASTER")
                found[name] = _state_of(link, socket.if_indextoname(master) if master else "")
    return found


def _state_of(link: Any, master: str) -> LinkState:
    return LinkState(link["index"], master, bool(link["flags"] & IFF_UP))


def read_routes(*, but_of: Iterable[str] = ()) -> list[Subnet]:
    """List the destinations in the main routing table, without default routes and those of some interfaces."""
    with IPRoute() as ipr:
        ignored = {find_index(name) for name in but_of}
        found: list[Subnet] = []
        for family in (AF_INET, AF_INET6):
            for route in ipr.get_routes(family=family, table=MAIN_TABLE):
                destination = route.get_attr("RTA_DST")
                if destination is None or route["dst_len"] == 0 or route.get_attr("RTA_OIF") in ignored:
                    continue
                found.append(ipaddress.ip_network(f"{destination}/{route['dst_len']}", strict=False))
        return [subnet for subnet in found if not subnet.is_link_local and not subnet.is_multicast]


def read_next_hops() -> list[Address]:
    """List the routers that the main routing table leads to."""
    with IPRoute() as ipr:
        found = [
            route.get_attr("RTA_GATEWAY")
            for family in (AF_INET, AF_INET6)
            for route in ipr.get_routes(family=family, table=MAIN_TABLE)
        ]
    hops = [ipaddress.ip_address(gateway) for gateway in found if gateway]
    return [hop for hop in hops if not hop.is_link_local]


def list_bridges() -> list[str]:
    """List the names of all bridges of this thread's namespace, whoever made them."""
    with IPRoute() as ipr:
        return sorted(link.get_attr("IFLA_IFNAME") for link in ipr.get_links(kind="bridge"))
