"""Makes, inspects and repairs bridges through netlink. Everything blocks; no policy, no state."""

import errno
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pyroute2 import IPRoute

from bennu.network.namespaces import interface_sysctls
from bennu.network.namespaces.netlink import IFF_UP, add_address, find_index, list_addresses, require_index

LINK_LOCAL: Final = ipaddress.IPv6Network("fe80::/64")


@dataclass(frozen=True, slots=True)
class BridgeAddress:
    """An address in text form, of either family."""

    address: str
    prefix_len: int


@dataclass(frozen=True, slots=True)
class BridgePlan:
    """The wanted state of a bridge."""

    name: str
    addresses: tuple[BridgeAddress, ...]
    mtu: int
    # Without a MAC address of its own a bridge takes the lowest of its ports' and changes it as they come and go; every
    # container would go on sending to the old one. test_the_bridges_mac_address_stays_as_containers_come_and_go
    mac_address: str
    route_localnet: bool

    @property
    def sysctls(self) -> Mapping[str, str]:
        ipv6 = any(":" in item.address for item in self.addresses)
        return interface_sysctls.bridge_sysctls(self.name, ipv6=ipv6, route_localnet=self.route_localnet)


def ensure_bridge(plan: BridgePlan) -> None:
    """Make the bridge, or repair the one that exists; other addresses are removed from it. Idempotent.

    Raises: OSError (EEXIST if an interface of that name is no bridge), NetlinkError.
    """
    with IPRoute() as ipr:
        if find_index(plan.name) is None:
            ipr.link("add", ifname=plan.name, kind="bridge", mtu=plan.mtu, address=plan.mac_address)
        index = require_index(plan.name)
        link = ipr.get_links(index)[0]
        if link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") != "bridge":
            raise OSError(errno.EEXIST, "an interface of that name is there and is no bridge", plan.name)
        interface_sysctls.drop_advertised(plan.name)
        interface_sysctls.apply(plan.sysctls)
        present = list_addresses(ipr, index)
        wanted = {(item.address, item.prefix_len) for item in plan.addresses}
        for address, prefix_len in present - wanted:
            if ipaddress.ip_address(address) in LINK_LOCAL:
                continue  # the kernel's
            ipr.addr("del", index=index, address=address, prefixlen=prefix_len)
        for address, prefix_len in sorted(wanted - present):
            add_address(ipr, index, address, prefix_len)
        ipr.link("set", index=index, state="up", mtu=plan.mtu, address=plan.mac_address)


def find_faults(plan: BridgePlan) -> list[str]:
    """List what differs from the plan, in words for the log; additional addresses do not count.

    Raises: OSError, NetlinkError.
    """
    with IPRoute() as ipr:
        index = find_index(plan.name)
        if index is None:
            return ["it is gone"]
        link = ipr.get_links(index)[0]
        present = list_addresses(ipr, index)
    missing = [item.address for item in plan.addresses if (item.address, item.prefix_len) not in present]
    return [
        *([] if link["flags"] & IFF_UP else ["it is down"]),
        *(f"it has lost {address}" for address in missing),
        *([] if link.get_attr("IFLA_MTU") == plan.mtu else ["its MTU is another one"]),
        *([] if link.get_attr("IFLA_ADDRESS") == plan.mac_address else ["its MAC address is another one"]),
        *(f"it is not {sysctl}" for sysctl in interface_sysctls.find_deviations(plan.sysctls)),
    ]


def read_addresses(name: str) -> list[str] | None:
    """Read the addresses of an interface with their prefix lengths, in the kernel's order; None if it is not there."""
    with IPRoute() as ipr:
        index = find_index(name)
        if index is None:
            return None
        return [f"{item.get_attr('IFA_ADDRESS')}/{item['prefixlen']}" for item in ipr.get_addr(index=index)]


def complete_bridge(plan: BridgePlan) -> None:
    """Give an administrator's bridge the addresses that it lacks, and let it lead to 127.0.0.1; nothing is taken away.

    One that is gone is not made anew. Raises: OSError, NetlinkError.
    """
    with IPRoute() as ipr:
        index = find_index(plan.name)
        if index is None:
            return
        present = {address for address, _ in list_addresses(ipr, index)}
        missing = [item for item in plan.addresses if item.address not in present]
        if any(":" in item.address for item in missing):
            interface_sysctls.apply({f"ipv6/conf/{plan.name}/disable_ipv6": "0"})
        for item in missing:
            add_address(ipr, index, item.address, item.prefix_len)
        if missing:
            ipr.link("set", index=index, state="up")
    interface_sysctls.apply({f"ipv4/conf/{plan.name}/route_localnet": "1"})
