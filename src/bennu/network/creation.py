"""Checks the request for a new network and completes it to a `Network`. Pure: the state of the host is handed in.

The words of refusals are dockerd's: moby, daemon/network.go, libnetwork/controller.go, and for subnets ValidateIPAM of
api/types/network/ipam.go.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from bennu.errors import BennuError, Conflict, Forbidden, InvalidParameter, NotFound, NotImplementedHere
from bennu.go.bool import parse_bool
from bennu.model import Shape
from bennu.network.ipam.addresses import DEFAULT_POOLS, Address, Subnet
from bennu.network.ipam.planning import IpamConfig, PoolsInUse, config_of, find_ipam_problems, plan_ipam
from bennu.network.model import (
    OPTION_BRIDGE_NAME,
    OPTION_ENABLE,
    PREDEFINED,
    GatewayMode,
    Ipam,
    Network,
)
from bennu.network.option_checks import INTERFACE_NAME, check_bridge_options

NEED_SWARM: Final = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm '
    "and try again."
)
ONLY_OPERATOR_FIELDS: Final = (
    "configuration network can only contain network specific fields. Network operator fields like "
    "[ ingress | internal | attachable | scope ] are not supported."
)
OTHER_DRIVERS: Final = ("macvlan", "ipvlan")


class IpamRequest(Shape):
    """The field `IPAM`."""

    driver: str = "default"
    options: dict[str, str] | None = None
    config: list[IpamConfig] | None = None


class ConfigSource(Shape):
    """The field `ConfigFrom`."""

    network: str = ""


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
    config_from: ConfigSource | None = None
    ipam: IpamRequest | None = msgspec.field(name="IPAM", default=None)
    options: dict[str, str] | None = None
    labels: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a new network has to fit in with."""

    present: Sequence[Network]  # all existing networks
    interfaces: Iterable[str] = ()  # the names of the host's interfaces
    routes: Sequence[Subnet] = ()  # what no subnet that is chosen here may overlap
    needed: Sequence[Address] = ()  # addresses of others that the host depends on: no subnet at all may cover them
    global_id: bytes = bytes(5)  # the same for all IPv6 networks of this host
    pools: Sequence[tuple[str, int]] = DEFAULT_POOLS  # (range, prefix length) from which subnets are chosen
    swarm_pools: Sequence[tuple[str, int]] = ()  # the same for overlay networks; without any, these are refused
    default_options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # by driver


def plan_network(request: NetworkRequest, around: Surroundings, *, network_id: str, created_ns: int) -> Network:
    """Make the network that a request asks for.

    Raises: InvalidParameter, Forbidden, Conflict, NotFound, NotImplementedHere, NoFreeSubnet.
    """
    _check_name(request.name, around.present)
    _check_dependence(request)
    in_swarm = bool(around.swarm_pools)
    is_overlay = request.driver == "overlay"
    if is_overlay and not in_swarm:
        raise Forbidden(NEED_SWARM)
    network = Network(
        id=network_id,
        name=request.name,
        created_ns=created_ns,
        internal=request.internal,
        attachable=request.attachable,
        labels=dict(request.labels or {}),
        options=_options(request, around.default_options),
        ipam_options=request.ipam.options if request.ipam else None,
        scope="swarm" if is_overlay else request.scope or "local",
        is_overlay=is_overlay,
        ingress=request.ingress,
        config_from=request.config_from.network if request.config_from else "",
    )
    network.enable_ipv4 = _enabled(network, 4, request.enable_ipv4, usual=True)
    network.enable_ipv6 = _enabled(network, 6, request.enable_ipv6, usual=False)
    configs = list((request.ipam.config if request.ipam else None) or [])
    _check_subnets(configs, enable_ipv6=network.enable_ipv6)
    if request.config_only:
        network.config_only, network.driver, network.is_overlay, network.scope = True, "null", False, "local"
        network.ipam = [_recorded(config) for config in configs]
        return network
    _check_driver(request, network, in_swarm)
    if request.ingress:
        _check_ingress(request, around.present)
    if network.config_from:
        configs = _take_configuration(network, around.present)
    _check_bridge(network, around)
    in_use = PoolsInUse(
        ours=[pool.subnet for other in around.present if not other.config_only for pool in other.ipam],
        routes=around.routes,
        needed=around.needed,
        global_id=around.global_id,
    )
    plan_ipam(network, configs, in_use, around.swarm_pools if is_overlay else around.pools)
    return network


def _check_name(name: str, present: Iterable[Network]) -> None:
    if not name.strip():
        raise InvalidParameter("invalid name: name is empty")
    if name in PREDEFINED or name == "default":
        raise Forbidden(f"operation is not permitted on predefined {name} network")
    if any(network.name == name for network in present):
        raise Conflict(f"network with name {name} already exists")


def _check_dependence(request: NetworkRequest) -> None:
    """Refuse what a configuration network cannot say, and what a network made from one must not say."""
    if request.config_only and (request.ingress or request.internal or request.attachable or request.scope):
        raise Forbidden(ONLY_OPERATOR_FIELDS)
    if not request.config_from or not request.config_from.network:
        return
    if request.config_only:
        raise Forbidden("a configuration network cannot depend on another configuration network")
    ipam = request.ipam or IpamRequest()
    if (
        ipam.driver not in ("", "default")
        or request.enable_ipv4 is False
        or request.enable_ipv6
        or request.labels
        or ipam.options
        or ipam.config
    ):
        raise Forbidden(
            "user specified configurations are not supported if the network depends on a configuration network"
        )
    if request.options:
        raise Forbidden("network driver options are not supported if the network depends on a configuration network")


def _options(request: NetworkRequest, defaults: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Merge the options with the administrator's; a network made from another takes that one's only."""
    asked = request.options or {}
    return dict(asked) if request.config_from else {**defaults.get(request.driver or "bridge", {}), **asked}


def _enabled(network: Network, version: int, asked: bool | None, *, usual: bool) -> bool:
    """Decide whether a family is enabled. An option that the request overrides is dropped: inspect would mislead."""
    option = OPTION_ENABLE[version]
    if asked is not None:
        network.options.pop(option, None)
        return asked
    try:
        return parse_bool(network.options[option]) if option in network.options else usual
    except ValueError:
        raise InvalidParameter(f'driver-opt "{option}" is not a valid bool') from None


def _check_subnets(configs: Iterable[IpamConfig], *, enable_ipv6: bool) -> None:
    problems = [problem for config in configs for problem in find_ipam_problems(config, enable_ipv6)]
    if problems:
        shown = problems if len(problems) == 1 else [f"* {problem}" for problem in problems]
        raise InvalidParameter("invalid network config:\n" + "\n".join(shown))


def _recorded(config: IpamConfig) -> Ipam:
    """Keep what a configuration network says of a subnet; nothing is chosen yet."""
    return Ipam(
        subnet=config.subnet,
        gateway=config.gateway,
        ip_range=config.ip_range,
        aux=dict(config.auxiliary_addresses or {}),
        asked=True,
    )


def _check_driver(request: NetworkRequest, network: Network, in_swarm: bool) -> None:
    driver = request.driver or "bridge"
    if driver in ("host", "null"):
        raise Forbidden(f'only one instance of "{driver}" network is allowed')
    if driver in OTHER_DRIVERS:
        raise NotImplementedHere(f"network driver {driver} is not implemented")
    if driver not in ("bridge", "overlay"):
        raise NotFound(f'plugin "{driver}" not found')
    if request.ingress and not in_swarm:
        raise Forbidden("Ingress network can only be global scope network")
    if network.scope == "swarm" and not in_swarm:
        raise Forbidden("cannot create a swarm scoped network when swarm is not active")
    if network.scope == "swarm" and not network.enable_ipv4:
        raise InvalidParameter("IPv4 cannot be disabled in a Swarm scoped network")
    if request.ipam is not None and request.ipam.driver not in ("", "default"):
        raise NotFound(f'plugin "{request.ipam.driver[:100]}" not found')


def _check_ingress(request: NetworkRequest, present: Iterable[Network]) -> None:
    if request.driver != "overlay":
        raise NotImplementedHere("only overlay driver is currently supported for ingress network")
    if request.attachable:
        raise InvalidParameter("rpc error: code = InvalidArgument desc = ingress network cannot be attachable")
    there = next((network for network in present if network.ingress), None)
    if there is not None:
        raise Conflict(f"rpc error: code = AlreadyExists desc = ingress network ({there.id}) is already present")


def _take_configuration(network: Network, present: Iterable[Network]) -> list[IpamConfig]:
    """Fill the network with what its configuration network says; return that one's subnets. Raises: NotFound."""
    name = network.config_from
    found = next((other for other in present if other.config_only and other.name == name), None)
    if found is None:
        raise NotFound(f'configuration network "{name[:100]}" does not exist')
    network.enable_ipv4, network.enable_ipv6 = found.enable_ipv4, found.enable_ipv6
    network.labels, network.options, network.ipam_options = dict(found.labels), dict(found.options), found.ipam_options
    return [config_of(pool) for pool in found.ipam]


def _check_bridge(network: Network, around: Surroundings) -> None:
    """Check the options, and give the bridge its name. Raises: BennuError."""
    check_bridge_options(network.options)
    if not network.enable_ipv4 and not network.enable_ipv6:
        raise InvalidParameter("IPv4 or IPv6 must be enabled")
    modes = [network.gateway_mode(version) for version in (4, 6)]
    if GatewayMode.ISOLATED in modes and not network.internal:
        raise BennuError("gateway mode 'isolated' can only be used for an internal network")
    network.bridge = network.options.get(OPTION_BRIDGE_NAME) or f"br-{network.id[:12]}"
    if not INTERFACE_NAME.match(network.bridge):
        raise InvalidParameter(f"invalid name of a bridge: {network.bridge[:100]}")
    if other := next((other for other in around.present if other.bridge == network.bridge), None):
        raise Forbidden(
            f"cannot create network {network.id} ({network.bridge}): conflicts with network {other.id} "
            f"({other.bridge}): networks have same bridge name"
        )
    if network.bridge in set(around.interfaces):
        raise Forbidden(f"an interface named {network.bridge} already exists on this host")
