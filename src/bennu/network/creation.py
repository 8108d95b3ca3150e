"""Checks the request for a new network and completes it to a `Network`. Pure: the state of the host is handed in.

The words of refusals are dockerd's: moby, daemon/network.go, libnetwork/controller.go, and for subnets ValidateIPAM of
api/types/network/ipam.go.
"""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from bennu.errors import Conflict, Forbidden, InvalidParameter, NotFound, NotImplementedHere
from bennu.go.bool import parse_bool
from bennu.model import Shape
from bennu.network.ipam.addresses import (
    DEFAULT_POOLS,
    Address,
    Subnet,
    choose_ipv6_subnet,
    choose_subnet,
    first_host,
    overlapping,
)
from bennu.network.model import (
    OPTION_ADVERTISE_COUNT,
    OPTION_ADVERTISE_MS,
    OPTION_BRIDGE_NAME,
    OPTION_HOST_BINDING,
    OPTION_ICC,
    OPTION_INTERFACE_PREFIX,
    OPTION_MASQUERADE,
    OPTION_MTU,
    PREDEFINED,
    Ipam,
    Network,
)

INTEGER: Final = re.compile(r"[+-]?[0-9]{1,9}\Z", re.ASCII)
NUMBER: Final = re.compile(r"[0-9]{1,5}\Z", re.ASCII)
INTERFACE_NAME: Final = re.compile(r"[^\s/:]{1,15}\Z")
NOT_HONOURED: Final = (
    "com.docker.network.bridge.inhibit_ipv4",
    "com.docker.network.bridge.gateway_mode_ipv4",
    "com.docker.network.bridge.gateway_mode_ipv6",
    "com.docker.network.bridge.trusted_host_interfaces",
    "com.docker.network.host_ipv4",
    "com.docker.network.host_ipv6",
    "com.docker.network.enable_ipv6",
)
NEED_SWARM: Final = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm '
    "and try again."
)
OTHER_DRIVERS: Final = ("macvlan", "ipvlan")


class IpamConfig(Shape, omit_defaults=True):
    """One entry of `IPAM.Config`."""

    subnet: str = ""
    ip_range: str = msgspec.field(name="IPRange", default="")
    gateway: str = ""
    auxiliary_addresses: dict[str, str] | None = None


class IpamRequest(Shape):
    """The field `IPAM`."""

    driver: str = "default"
    options: dict[str, str] | None = None
    config: list[IpamConfig] | None = None


class NetworkRequest(Shape):
    """The body of `POST /networks/create`."""

    name: str = ""
    driver: str = "bridge"
    scope: str = ""
    enable_ipv4: bool | None = msgspec.field(name="EnableIPv4", default=None)
    enable_ipv6: bool | None = msgspec.field(name="EnableIPv6", default=None)
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: dict[str, str] | None = None
    ipam: IpamRequest | None = msgspec.field(name="IPAM", default=None)
    options: dict[str, str] | None = None
    labels: dict[str, str] | None = None


def plan_network(
    request: NetworkRequest,
    *,
    network_id: str,
    created_ns: int,
    present: Sequence[Network],
    interfaces: Iterable[str],
    routes: Sequence[Subnet],
    global_id: bytes,
    pools: Sequence[tuple[str, int]] = DEFAULT_POOLS,
    swarm_pools: Sequence[tuple[str, int]] = (),
) -> Network:
    """Make the network that a request asks for.

    Args:
        present: all existing networks.
        interfaces: the names of the host's interfaces.
        routes: the destinations of the host's own routes.
        global_id: 5 random bytes, the same for all IPv6 networks of this host.
        pools: (range, prefix length) from which subnets are chosen if the request names none.
        swarm_pools: the same for overlay networks; without any, these are refused.
    Raises: InvalidParameter, Forbidden, Conflict, NotFound, NotImplementedHere, NoFreeSubnet.
    """
    _check_name(request.name, present)
    _check_driver(request, bool(swarm_pools))
    if request.ingress:
        _check_ingress(request, present)
    is_overlay = request.driver == "overlay"
    options = dict(request.options or {})
    network = Network(
        id=network_id,
        name=request.name,
        created_ns=created_ns,
        enable_ipv6=bool(request.enable_ipv6),
        internal=request.internal,
        attachable=request.attachable,
        labels=dict(request.labels or {}),
        options=options,
        ipam_options=request.ipam.options if request.ipam else {},
        bridge=options.get(OPTION_BRIDGE_NAME) or f"br-{network_id[:12]}",
        scope="swarm" if is_overlay else "local",
        ingress=request.ingress,
    )
    _check_options(network, present, interfaces)
    network.ipam = _plan_ipam(request, present, routes, global_id, swarm_pools if is_overlay else pools)
    return network


def _check_name(name: str, present: Iterable[Network]) -> None:
    if not name.strip():
        raise InvalidParameter("invalid network name: name is empty")
    if name in PREDEFINED or name == "default":
        raise Forbidden(f"operation is not permitted on predefined {name} network")
    if any(network.name == name for network in present):
        raise Conflict(f"network with name {name} already exists")


def _check_driver(request: NetworkRequest, in_swarm: bool) -> None:
    driver = request.driver or "bridge"
    if request.config_only or (request.config_from or {}).get("Network"):
        raise NotImplementedHere("configuration-only networks are not implemented")
    if request.ingress and not in_swarm:
        raise Forbidden(NEED_SWARM)
    if driver in ("host", "null", "none"):
        raise Forbidden(f'only one instance of "{driver}" network is allowed')
    if driver == "overlay" or request.scope == "swarm":
        if not in_swarm:
            raise Forbidden(NEED_SWARM)
        if driver != "overlay":
            raise NotImplementedHere(f"networks of scope swarm and driver {driver} are not implemented")
        driver = "bridge"
    if driver in OTHER_DRIVERS:
        raise NotImplementedHere(f"network driver {driver} is not implemented")
    if driver != "bridge":
        raise NotFound(f'plugin "{driver}" not found')
    ipam = request.ipam
    if ipam is not None and ipam.driver not in ("", "default"):
        raise NotImplementedHere(f"IPAM driver {ipam.driver} is not implemented")
    if request.enable_ipv4 is False:
        raise NotImplementedHere("networks without IPv4 are not implemented")


def _check_ingress(request: NetworkRequest, present: Iterable[Network]) -> None:
    if request.driver != "overlay":
        raise NotImplementedHere("only overlay driver is currently supported for ingress network")
    if request.attachable:
        raise InvalidParameter("rpc error: code = InvalidArgument desc = ingress network cannot be attachable")
    there = next((network for network in present if network.ingress), None)
    if there is not None:
        raise Conflict(f"rpc error: code = AlreadyExists desc = ingress network ({there.id}) is already present")


def _check_options(network: Network, present: Iterable[Network], interfaces: Iterable[str]) -> None:
    for option in NOT_HONOURED:
        if option in network.options:
            raise NotImplementedHere(f"network option {option} is not implemented")
    if not INTERFACE_NAME.match(network.bridge):
        raise InvalidParameter(f"invalid name of a bridge: {network.bridge[:100]}")
    if any(network.bridge == other.bridge for other in present):
        raise Forbidden("networks have same bridge name")
    if network.bridge in set(interfaces):
        raise Forbidden(f"an interface named {network.bridge} already exists on this host")
    for option in (OPTION_ICC, OPTION_MASQUERADE):
        value = network.options.get(option, "true")
        try:
            parse_bool(value)
        except ValueError as error:
            raise InvalidParameter(f"failed to parse {option} value: {error}") from None
    mtu = network.options.get(OPTION_MTU, "1500")
    if not NUMBER.match(mtu) or not 68 <= int(mtu) <= 65535:
        raise InvalidParameter(f"invalid MTU: {mtu[:100]}")
    _check_number(network, OPTION_ADVERTISE_COUNT, "an integer", 0, 3)
    _check_number(network, OPTION_ADVERTISE_MS, "integer milliseconds", 100, 2000)
    prefix = network.options.get(OPTION_INTERFACE_PREFIX, "")
    if prefix and not INTERFACE_NAME.match(f"{prefix}0"):
        raise InvalidParameter(f"invalid prefix of interface names: {prefix[:100]}")
    binding = network.options.get(OPTION_HOST_BINDING, "")
    if binding:
        try:
            ipaddress.ip_address(binding)
        except ValueError:
            raise InvalidParameter(f"invalid host binding address: {binding[:100]}") from None


def _check_number(network: Network, option: str, what: str, least: int, most: int) -> None:
    text = network.options.get(option)
    if text is None:
        return
    if not INTEGER.match(text):
        raise InvalidParameter(f'value for option {option} "{text[:100]}" must be {what}')
    if not least <= int(text) <= most:
        raise InvalidParameter(f"{option} must be in the range {least} to {most}")


def _plan_ipam(
    request: NetworkRequest,
    present: Iterable[Network],
    routes: Sequence[Subnet],
    global_id: bytes,
    pools: Sequence[tuple[str, int]],
) -> list[Ipam]:
    configs = (request.ipam.config if request.ipam else None) or []
    ours = [ipaddress.ip_network(pool.subnet) for network in present for pool in network.ipam]
    problems = [problem for config in configs for problem in find_ipam_problems(config, bool(request.enable_ipv6))]
    if problems:
        raise InvalidParameter("invalid network config:\n" + "\n".join(problems))
    planned: list[Ipam] = []
    for config in configs:
        if config.subnet:
            pool = _asked(config, ours, routes)
            ours.append(ipaddress.ip_network(pool.subnet))
            planned.append(pool)
    families = {ipaddress.ip_network(pool.subnet).version for pool in planned}
    if 4 not in families:
        bare = next((config for config in configs if not config.subnet), IpamConfig())
        planned.insert(0, _free(choose_subnet([*ours, *routes], pools), bare))
    if request.enable_ipv6 and 6 not in families:
        planned.append(_free(choose_ipv6_subnet([*ours, *routes], global_id), IpamConfig()))
    return planned


def _asked(config: IpamConfig, ours: Sequence[Subnet], routes: Sequence[Subnet]) -> Ipam:
    subnet = ipaddress.ip_network(config.subnet)
    if overlapping(subnet, ours) is not None:
        raise Forbidden("invalid pool request: Pool overlaps with other one on this address space")
    route = overlapping(subnet, routes)
    if route is not None:
        raise Forbidden(f"cannot create network: subnet {subnet} overlaps with a route of this host to {route}")
    aux = dict(config.auxiliary_addresses or {})
    taken = {ipaddress.ip_address(address) for address in aux.values()}
    return Ipam(
        subnet=str(subnet),
        gateway=config.gateway or str(_free_gateway(config, subnet, taken)),
        ip_range=config.ip_range,
        aux=aux,
        asked=True,
    )


def _free_gateway(config: IpamConfig, subnet: Subnet, taken: set[Address]) -> Address:
    """Choose the first address of the range, as dockerd does, or the next that is no auxiliary address."""
    candidate = first_host(ipaddress.ip_network(config.ip_range) if config.ip_range else subnet)
    while candidate in taken and candidate + 1 in subnet:
        candidate += 1
    return candidate


def _free(subnet: Subnet, config: IpamConfig) -> Ipam:
    return Ipam(subnet=str(subnet), gateway=config.gateway or str(first_host(subnet)))


def find_ipam_problems(config: IpamConfig, enable_ipv6: bool) -> list[str]:
    """List every problem of one `IPAM.Config` entry, in dockerd's words; `test_each_problem_of_a_subnet_is_named`."""
    if not config.subnet:
        if config.ip_range or config.auxiliary_addresses or config.gateway:
            return ["invalid network config: a subnet is needed for a gateway, a range or auxiliary addresses"]
        return []
    subnet, problem = _parse_network(config.subnet, "subnet")
    if subnet is None:
        return [problem]
    if subnet.version == 6 and not enable_ipv6:
        return [f"invalid subnet {subnet}: IPv6 has not been enabled"]
    problems = _range_problems(config.ip_range, subnet)
    named = [("gateway", config.gateway)] if config.gateway else []
    named += [("auxiliary address", address) for address in (config.auxiliary_addresses or {}).values()]
    for what, text in named:
        problems += _address_problems(what, text, subnet)
    return problems


def _parse_network(text: str, what: str) -> tuple[Subnet | None, str]:
    try:
        if "/" not in text:
            raise ValueError
        loose = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None, f"invalid {what} {text[:100]}: invalid CIDR block notation"
    if ipaddress.ip_address(text.partition("/")[0]) != loose.network_address:
        return None, f"invalid {what} {text}: it should be {loose}"
    return loose, ""


def _range_problems(text: str, subnet: Subnet) -> list[str]:
    if not text:
        return []
    inner, problem = _parse_network(text, "ip-range")
    if inner is None:
        return [problem]
    if inner.version != subnet.version or inner.network_address not in subnet:
        return [f"invalid ip-range {inner}: parent subnet {subnet} doesn't contain ip-range"]
    if inner.prefixlen < subnet.prefixlen:
        return [f"invalid ip-range {inner}: CIDR block is bigger than its parent subnet {subnet}"]
    return []


def _address_problems(what: str, text: str, subnet: Subnet) -> list[str]:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return [f"invalid {what} {text[:100]}: invalid address"]
    if address.version != subnet.version or address not in subnet:
        return [f"invalid {what} {address}: parent subnet {subnet} doesn't contain this address"]
    return []
