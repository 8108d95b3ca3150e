"""Makes, inspects and repairs bridges through netlink. Everything blocks; no policy, no state."""

import errno
from collections.abc import Mapping
from dataclasses import dataclass

from pyroute2 import IPRoute

from bennu.network.namespaces import interface_sysctls
from bennu.network.namespaces.netlink import IFF_UP, add_address, find_index, list_addresses, require_index


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


def read_bridge_address(name: str) -> BridgeAddress | None:
    """Read the first IPv4 address of an interface; None if it does not exist or has none."""
    with IPRoute() as ipr:
        index = find_index(name)
        if index is None:
            return None
        found = sorted(item for item in list_addresses(ipr, index) if ":" not in item[0])
        return BridgeAddress(*found[0]) if found else None


def allow_route_localnet(name: str) -> None:
    """Set `route_localnet` on an administrator's bridge, which is left alone otherwise."""
    interface_sysctls.apply({f"ipv4/conf/{name}/route_localnet": "1"})
