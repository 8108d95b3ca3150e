"""The default bridge, and subnets that nothing else on the host uses."""

import asyncio
import contextlib
import fcntl
import hashlib
import ipaddress
import logging
import os
import time
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from pathlib import Path
from typing import Final

from bennu.errors import InvalidParameter
from bennu.network.dns.host_resolv_conf import read_resolv_conf, resolver_addresses
from bennu.network.ipam.addresses import Address, Subnet, choose_gateway, mac_of, overlapping
from bennu.network.ipam.catalogue import Catalogue, new_network_id
from bennu.network.ipam.default_subnet import plan_default_subnet
from bennu.network.ipam.planning import choose_of_family
from bennu.network.model import OPTION_BRIDGE_NAME, GatewayMode, Ipam, Network, NetworkSettings
from bennu.network.namespaces import bridges, netlink
from bennu.network.namespaces.bridges import BridgeAddress, BridgePlan
from bennu.network.namespaces.netns import in_own_thread

SUBNET_LOCK: Final = Path("/run/lock/bennu-subnets")  # of the machine: two daemons must not choose the same subnet
NO_BRIDGE: Final = "none"  # as --bridge: there is no default bridge
log = logging.getLogger(__name__)


async def ensure_default_bridge(
    catalogue: Catalogue, bridge: str, settings: NetworkSettings, busy: Collection[str], global_id: bytes
) -> None:
    """Make the network `bridge` as the administrator's flags say, or as it was where they say nothing.

    `busy`: ids of networks with living containers; of such a one neither interface nor subnets change before they have
    ended. The caller holds `subnet_lock`. Raises: BennuError.
    """
    known = catalogue.named("bridge")
    is_busy = known is not None and known.id in busy
    if bridge == NO_BRIDGE:
        if known is not None and is_busy:
            log.warning("containers are on the default bridge: it stays until bennud starts without them")
        elif known is not None:
            await _remove_interface(known)
            await catalogue.remove(known)
        return
    options = settings.bridge_options(bridge)
    if known is None:
        known = Network(id=new_network_id(), name="bridge", created_ns=time.time_ns())
        known.foreign = bool(settings.bridge)
    elif known.bridge != bridge and not is_busy:
        await _remove_interface(known)
        known.bridge, known.foreign = "", bool(settings.bridge)
    try:
        ipam = await _plan_default_ipam(catalogue, known, bridge, settings, global_id)
    except InvalidParameter as error:
        if not is_busy:
            raise
        log.warning("containers are on the default bridge, which stays as it is: %s", error)
        return
    if is_busy and (known.bridge, _addresses(known.ipam)) != (bridge, _addresses(ipam)):
        log.warning("containers are on the default bridge: it keeps its subnet until bennud starts without them")
        options[OPTION_BRIDGE_NAME] = known.bridge
    else:
        known.bridge, known.ipam, known.enable_ipv6 = bridge, ipam, settings.ipv6
    known.options = options
    await catalogue.add(known)


def _addresses(ipam: Iterable[Ipam]) -> list[tuple[str, str, str, dict[str, str]]]:
    return [(pool.subnet, pool.gateway, pool.ip_range, pool.aux) for pool in ipam]


async def _remove_interface(network: Network) -> None:
    if not network.foreign:
        await in_own_thread(lambda: netlink.remove_link(network.bridge))


async def _plan_default_ipam(
    catalogue: Catalogue, known: Network, bridge: str, settings: NetworkSettings, global_id: bytes
) -> list[Ipam]:
    """Plan the default bridge's subnets, one a family. Raises: InvalidParameter, NoFreeSubnet, NoFreeAddress."""
    addresses = await in_own_thread(lambda: bridges.read_addresses(bridge))
    if addresses is None and known.foreign:
        raise InvalidParameter(f"bridge device with non default name {bridge} must be created manually")
    if known.bridge == bridge and not known.foreign:  # what it had, whether or not it is there at the moment
        addresses = [f"{pool.gateway}/{ipaddress.ip_network(pool.subnet).prefixlen}" for pool in known.ipam]
    others = [
        ipaddress.ip_network(pool.subnet)
        for one in catalogue
        if one.id != known.id
        for pool in one.ipam
        if not one.config_only
    ]
    used = [*others, *await used_subnets(but_of=[bridge])]
    planned = []
    for flags in settings.families:
        asked = plan_default_subnet(flags, addresses or [], is_foreign=known.foreign)
        if asked.warning:
            log.warning("%s", asked.warning)
        config = asked.config
        subnet = config.subnet or str(choose_of_family(flags.version, used, settings.pools, global_id))
        aux = config.auxiliary_addresses or {}
        if flags.default_gateway and ipaddress.ip_address(flags.default_gateway) not in ipaddress.ip_network(subnet):
            raise InvalidParameter("default gateway ip must be part of the network")
        gateway = config.gateway or choose_gateway(ipaddress.ip_network(subnet), config.ip_range, aux.values())
        planned.append(
            Ipam(
                subnet=subnet,
                gateway=gateway,
                ip_range=config.ip_range,
                aux=aux,
                asked=bool(flags.bip or flags.fixed_cidr) or known.foreign,
                gateway_is_implied=bool(flags.fixed_cidr and not config.gateway),
            )
        )
    return planned


async def renumber_conflicting(
    catalogue: Catalogue, settings: NetworkSettings, busy: Collection[str], global_id: bytes
) -> None:
    """Give another subnet to each network whose subnet meets a route of the host that appeared while we were away.

    Networks whose subnet was asked for, or that are in `busy` (ids of networks with living containers), keep theirs,
    with a warning in the log. Raises: BennuError.
    """
    ours = [network for network in catalogue if network.bridge and not network.foreign]
    routes = await used_subnets(but_of=[network.bridge for network in catalogue if network.bridge])
    for network in ours:
        for position, pool in enumerate(network.ipam):
            met = overlapping(ipaddress.ip_network(pool.subnet), routes)
            if met is None:
                continue
            if pool.asked or network.id in busy or pool.version == 6:
                log.warning("network %s on %s overlaps with a route of this host to %s", network.name, pool.subnet, met)
                continue
            subnet = choose_of_family(4, [*catalogue.subnets(), *routes], settings.pools, global_id)
            gateway = choose_gateway(subnet) if pool.gateway else ""
            network.ipam[position] = Ipam(subnet=str(subnet), gateway=gateway)
            log.warning("%s is in use on this host: network %s moves to another", met, network.name)
            await catalogue.add(network)


@contextlib.asynccontextmanager
async def subnet_lock() -> AsyncIterator[None]:
    """Hold the machine's lock from the choice of a subnet until its bridge is up and other daemons can see it."""
    SUBNET_LOCK.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(SUBNET_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        await _flock(fd)
        yield
    finally:
        os.close(fd)


async def _flock(fd: int) -> None:
    # At most 5 s: another daemon holds it for milliseconds, and one that is stopped must not block us.
    for _ in range(250):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        await asyncio.sleep(0.02)
    log.warning("another daemon has held %s for 5 s; going on without it", SUBNET_LOCK)


async def used_subnets(*, but_of: Sequence[str] = ()) -> list[Subnet]:
    """List what no new subnet may overlap: the host's routes, without those of some interfaces, and its resolvers."""
    routes = await in_own_thread(lambda: netlink.read_routes(but_of=but_of))
    return [*routes, *resolver_addresses(read_resolv_conf())]


async def needed_addresses() -> list[Address]:
    """List the routers and name servers that the host depends on, which no subnet may cover."""
    hops = await in_own_thread(netlink.read_next_hops)
    servers = [subnet.network_address for subnet in resolver_addresses(read_resolv_conf())]
    return [*hops, *servers]


async def set_up_bridge(network: Network, vips: Iterable[str] = ()) -> None:
    """Make or repair the bridge of a network, which also answers for the virtual addresses `vips`. Idempotent.

    Raises: OSError, NetlinkError.
    """
    plan = bridge_plan(network, vips)
    await in_own_thread(lambda: bridges.complete_bridge(plan) if network.foreign else bridges.ensure_bridge(plan))


def bridge_plan(network: Network, vips: Iterable[str] = ()) -> BridgePlan:
    """Return the wanted state of a network's bridge."""
    gateways = [
        (pool.gateway, ipaddress.ip_network(pool.subnet).prefixlen)
        for pool in network.ipam
        if _is_on_bridge(network, pool)
    ]
    return BridgePlan(
        name=network.bridge,
        addresses=(
            *(BridgeAddress(*gateway) for gateway in gateways),
            *(BridgeAddress(vip, netlink.HOST_PREFIX) for vip in vips),
        ),
        mtu=network.mtu,
        mac_address=mac_of(gateways[0][0]) if gateways else _mac_of_network(network),
        route_localnet=not network.internal and network.enable_ipv4,
    )


def _is_on_bridge(network: Network, pool: Ipam) -> bool:
    """Check that the bridge has the gateway's address of a subnet."""
    if not pool.gateway or network.gateway_mode(pool.version) is GatewayMode.ISOLATED:
        return False
    return not (pool.version == 4 and network.inhibits_ipv4)


def _mac_of_network(network: Network) -> str:
    """Derive a MAC address for a bridge without addresses; unlike `mac_of`, it is never a container's."""
    digest = hashlib.sha256(network.id.encode()).digest()
    return ":".join(f"{byte:02x}" for byte in b"\x06" + digest[:5])
