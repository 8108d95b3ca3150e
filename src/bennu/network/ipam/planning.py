"""Checks the subnets that a client asks for, and chooses those that it does not name. Pure.

The words of refusals are dockerd's: ValidateIPAM of moby, api/types/network/ipam.go, and libnetwork/network.go.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from bennu.errors import BennuError, Forbidden, InvalidParameter
from bennu.model import Shape
from bennu.network.ipam.addresses import (
    DEFAULT_POOLS,
    Address,
    AddressPool,
    NoFreeAddress,
    Subnet,
    choose_gateway,
    choose_subnet,
    local_ipv6_pool,
    overlapping,
)
from bennu.network.model import GatewayMode, Ipam, Network

ADDRESS_TAKEN: Final = "Address already in use"
LOOPBACK: Final = {4: ipaddress.ip_network("127.0.0.0/8"), 6: ipaddress.ip_network("::1/128")}
LINK_LOCAL: Final = ipaddress.IPv6Network("fe80::/64")  # where the kernel gives each interface an address


class IpamConfig(Shape, omit_defaults=True):
    """One entry of `IPAM.Config`."""

    subnet: str = ""
    ip_range: str = msgspec.field(name="IPRange", default="")
    gateway: str = ""
    auxiliary_addresses: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class PoolsInUse:
    """What subnets must keep clear of."""

    ours: Sequence[str]  # subnets of networks, which none may overlap
    routes: Sequence[Subnet] = ()  # destinations of the host's routes, which none that is chosen here may overlap
    needed: Sequence[Address] = field(default=())  # routers and name servers of the host, which none may cover
    global_id: bytes = bytes(5)  # of the host's IPv6 networks


def config_of(pool: Ipam) -> IpamConfig:
    """Return what was asked for of a subnet."""
    gateway = "" if pool.gateway_is_implied else pool.gateway
    return IpamConfig(subnet=pool.subnet, ip_range=pool.ip_range, gateway=gateway, auxiliary_addresses=pool.aux)


def plan_ipam(
    network: Network, configs: Sequence[IpamConfig], in_use: PoolsInUse, pools: Sequence[tuple[str, int]]
) -> None:
    """Set `ipam` and `unused_ipam` of a network whose options are final: what is asked, then what is chosen.

    `pools`: (range, prefix length) from which subnets are chosen. Raises: BennuError.
    """
    taken = [ipaddress.ip_network(subnet) for subnet in in_use.ours]
    enabled = [version for version, on in ((4, network.enable_ipv4), (6, network.enable_ipv6)) if on]
    network.ipam, network.unused_ipam = [], []
    # IPv4 first, as dockerd shows them.
    for config in sorted(configs, key=lambda config: ":" in config.subnet):
        pool = _asked(network, config, taken, in_use.needed)
        taken.append(ipaddress.ip_network(pool.subnet))
        (network.ipam if pool.version in enabled else network.unused_ipam).append(pool)
    families = [pool.version for pool in network.ipam]
    if network.shown_driver == "bridge" and len(set(families)) < len(families):
        raise Forbidden("bridge driver doesn't support multiple subnets")
    for version in enabled:
        if version not in families:
            subnet = choose_of_family(version, [*taken, *in_use.routes], pools, in_use.global_id)
            gateway = choose_gateway(subnet) if needs_gateway(network, version) else ""
            network.ipam.append(Ipam(subnet=str(subnet), gateway=gateway))


def choose_of_family(
    version: int, used: Sequence[Subnet], pools: Sequence[tuple[str, int]], global_id: bytes
) -> Subnet:
    """Choose a free subnet of the pools' ranges of a family (4, 6); without any, of the usual ones.

    Raises: NoFreeSubnet.
    """
    usual = DEFAULT_POOLS if version == 4 else [local_ipv6_pool(global_id)]
    of_family = [pool for pool in pools if (":" in pool[0]) == (version == 6)]
    return choose_subnet(used, of_family or usual)


def needs_gateway(network: Network, version: int) -> bool:
    """Check that a family of the network has a gateway, which takes an address from the containers."""
    if network.gateway_mode(version) is GatewayMode.ISOLATED:
        return False
    return not (version == 4 and network.inhibits_ipv4 and network.internal)


def _asked(network: Network, config: IpamConfig, taken: Sequence[Subnet], needed: Sequence[Address]) -> Ipam:
    subnet = ipaddress.ip_network(config.subnet)
    if overlapping(subnet, taken) is not None or subnet.prefixlen == 0:
        raise Forbidden("invalid pool request: Pool overlaps with other one on this address space")
    for address in needed:
        if address in subnet:
            raise Forbidden(f"cannot create network: subnet {subnet} covers {address}, which this host depends on")
    if subnet.version == 6 and subnet.overlaps(LINK_LOCAL) and subnet.prefixlen != LINK_LOCAL.prefixlen:
        raise InvalidParameter(f"'{subnet}' clashes with the Link-Local prefix '{LINK_LOCAL}'")
    aux = dict(config.auxiliary_addresses or {})
    _check_addresses(subnet, config.gateway, aux)
    gateway = config.gateway
    if not gateway and needs_gateway(network, subnet.version):
        try:
            gateway = choose_gateway(subnet, config.ip_range, aux.values())
        except NoFreeAddress as error:
            raise BennuError(f"failed to allocate gateway (): {error}") from None
    return Ipam(
        subnet=str(subnet),
        gateway=gateway,
        ip_range=config.ip_range,
        aux=aux,
        asked=True,
        gateway_is_implied=not config.gateway,
    )


def _check_addresses(subnet: Subnet, gateway: str, aux: dict[str, str]) -> None:
    """Refuse a gateway or an auxiliary address that is the network's or broadcast address. Raises: BennuError."""
    pool = AddressPool.of(str(subnet), "")
    named = [("gateway", gateway, gateway)] if gateway else []
    named += [("secondary ip address", f"{name}:{address}", address) for name, address in aux.items()]
    for what, shown, address in named:
        if ipaddress.ip_address(address) in pool.reserved:
            raise BennuError(f"failed to allocate {what} ({shown}): {ADDRESS_TAKEN}")
    if gateway and ipaddress.ip_address(gateway) in [ipaddress.ip_address(address) for address in aux.values()]:
        raise BennuError(f"failed to allocate secondary ip address ({gateway}): {ADDRESS_TAKEN}")


def find_ipam_problems(config: IpamConfig, enable_ipv6: bool) -> list[str]:
    """List every problem of one `IPAM.Config` entry, in dockerd's words; `test_each_problem_of_a_subnet_is_named`."""
    loose, host_bits = _parse_network(config.subnet)
    if loose is None:
        return [f"invalid subnet {config.subnet[:100]}: invalid CIDR block notation"]
    if loose.version == 6 and not enable_ipv6:
        # It is not looked at, but a subnet that cannot be read would be shown for ever.
        return [f"invalid subnet {config.subnet}: it should be {loose}"] if host_bits else []
    problems = [f"invalid subnet {config.subnet}: it should be {loose}"] if host_bits else []
    if loose.is_loopback or loose.is_multicast or loose.overlaps(LOOPBACK[loose.version]):
        problems.append(f"invalid subnet {config.subnet}: loopback and multicast addresses are of no network")
    problems += _range_problems(config.ip_range, loose)
    named = [("gateway", config.gateway, config.gateway)] if config.gateway else []
    named += [("auxiliary address", name, text) for name, text in (config.auxiliary_addresses or {}).items()]
    for what, shown, text in named:
        problems += _address_problems(f"{what} {shown[:100]}", text, loose)
    return problems


def _parse_network(text: str) -> tuple[Subnet | None, bool]:
    """Parse a network; also whether its address has bits of a host's. None: it is none."""
    try:
        if "/" not in text or not text.partition("/")[2].isdecimal():
            raise ValueError
        loose = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None, False
    if loose.version == 6 and loose.network_address.ipv4_mapped is not None:
        return None, False
    return loose, ipaddress.ip_address(text.partition("/")[0]) != loose.network_address


def _range_problems(text: str, subnet: Subnet) -> list[str]:
    if not text:
        return []
    inner, host_bits = _parse_network(text)
    what = f"invalid ip-range {text[:100]}"
    if inner is None:
        return [f"{what}: invalid CIDR block notation"]
    if inner.version != subnet.version:
        return [f"{what}: parent subnet is an IPv{subnet.version} block"]
    tests = {
        f"CIDR block is bigger than its parent subnet {subnet}": inner.prefixlen < subnet.prefixlen,
        f"it should be {inner}": host_bits,
        f"parent subnet {subnet} doesn't contain ip-range": not inner.overlaps(subnet),
    }
    return [f"{what}: {words}" for words, is_so in tests.items() if is_so]


def _address_problems(what: str, text: str, subnet: Subnet) -> list[str]:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return [f"invalid {what}: invalid address"]
    if address.version != subnet.version:
        return [f"invalid {what}: parent subnet is an IPv{subnet.version} block"]
    if address not in subnet:
        return [f"invalid {what}: parent subnet {subnet} doesn't contain this address"]
    return []
