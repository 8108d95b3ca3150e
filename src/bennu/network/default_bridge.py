"""The default bridge, and subnets that nothing else on the host uses."""

import asyncio
import contextlib
import fcntl
import ipaddress
import logging
import os
import time
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from pathlib import Path
from typing import Final

from bennu.errors import InvalidParameter, NotImplementedHere
from bennu.network.dns.host_resolv_conf import read_resolv_conf, resolver_addresses
from bennu.network.ipam.addresses import DEFAULT_POOLS, Subnet, choose_subnet, mac_of, overlapping
from bennu.network.ipam.catalogue import Catalogue, new_network_id
from bennu.network.model import Ipam, Network, NetworkSettings
from bennu.network.namespaces import bridges, netlink
from bennu.network.namespaces.bridges import BridgeAddress, BridgePlan
from bennu.network.namespaces.netns import in_own_thread

SUBNET_LOCK: Final = Path("/run/lock/bennu-subnets")  # of the machine: two daemons must not choose the same subnet
log = logging.getLogger(__name__)


async def ensure_default_bridge(catalogue: Catalogue, bridge: str, settings: NetworkSettings) -> Network:
    """Return the network `bridge`: the stored one, or a new one on a subnet that nothing on this host uses.

    If the administrator named an interface that exists, the network uses it and its address, and never changes it
    (`test_an_administrators_bridge_is_used_and_left_as_it_is`). The caller holds `subnet_lock`. Raises: BennuError.
    """
    if bridge == "none":
        raise NotImplementedHere("a daemon without default bridge (--bridge none) is not implemented")
    known = catalogue.named("bridge")
    if known is not None:
        if known.bridge == bridge and (not settings.bip or _ipam_of(settings.bip) == known.ipam[0]):
            known.options = settings.bridge_options(bridge)
            await catalogue.add(known)
            return known
        if not known.foreign and known.bridge != bridge:
            await in_own_thread(lambda: netlink.remove_link(known.bridge))
        await catalogue.remove(known)
    theirs: BridgeAddress | None = None
    if settings.bridge and known is None:
        theirs = await in_own_thread(lambda: bridges.read_bridge_address(bridge))
    if theirs is not None:
        ipam = _ipam_of(f"{theirs.address}/{theirs.prefix_len}")
    elif settings.bip:
        ipam = _ipam_of(settings.bip)
    else:
        ipam = choose_ipam([*catalogue.subnets(), *await used_subnets(but_of=[bridge])], settings)
    network = Network(
        id=new_network_id(),
        name="bridge",
        created_ns=time.time_ns(),
        bridge=bridge,
        foreign=theirs is not None,
        ipam=[ipam],
        options=settings.bridge_options(bridge),
    )
    await catalogue.add(network)
    return network


def choose_ipam(used: Iterable[Subnet], settings: NetworkSettings) -> Ipam:
    """Choose a free subnet of the administrator's pools, or dockerd's. Raises: NoFreeSubnet."""
    subnet = choose_subnet(used, settings.pools or DEFAULT_POOLS)
    return Ipam(subnet=str(subnet), gateway=str(subnet.network_address + 1))


async def renumber_conflicting(catalogue: Catalogue, settings: NetworkSettings, busy: Collection[str]) -> None:
    """Give another subnet to each network whose subnet meets a route of the host that appeared while we were away.

    Networks whose subnet a client asked for, or that are in `busy` (ids of networks with living containers), keep
    theirs, with a warning in the log. Raises: BennuError.
    """
    ours = [network for network in catalogue if network.bridge and not network.foreign]
    routes = await used_subnets(but_of=[network.bridge for network in catalogue if network.bridge])
    for network in ours:
        for position, pool in enumerate(network.ipam):
            met = overlapping(ipaddress.ip_network(pool.subnet), routes)
            if met is None:
                continue
            is_named = pool.asked or (network.name == "bridge" and bool(settings.bip))
            if is_named or network.id in busy or ":" in pool.subnet:
                log.warning("network %s on %s overlaps with a route of this host to %s", network.name, pool.subnet, met)
                continue
            network.ipam[position] = choose_ipam([*catalogue.subnets(), *routes], settings)
            log.warning("%s is in use on this host: network %s moves to another", met, network.name)
            await catalogue.add(network)


def _ipam_of(bip: str) -> Ipam:
    """Parse `--bip 172.26.0.1/24`: the bridge's address and its subnet. Raises: InvalidParameter."""
    try:
        interface = ipaddress.IPv4Interface(bip)
    except ValueError:
        raise InvalidParameter(f"invalid address of the default bridge: {bip}") from None
    return Ipam(subnet=str(interface.network), gateway=str(interface.ip))


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


async def set_up_bridge(network: Network, vips: Iterable[str] = ()) -> None:
    """Make or repair the bridge of a network, which also answers for the virtual addresses `vips`. Idempotent.

    Raises: OSError, NetlinkError.
    """
    if network.foreign:
        await in_own_thread(lambda: bridges.allow_route_localnet(network.bridge))
        return
    plan = bridge_plan(network, vips)
    await in_own_thread(lambda: bridges.ensure_bridge(plan))


def bridge_plan(network: Network, vips: Iterable[str] = ()) -> BridgePlan:
    """Return the wanted state of a network's bridge; not for an administrator's bridge."""
    gateways = [(pool.gateway, ipaddress.ip_network(pool.subnet)) for pool in network.ipam if pool.gateway]
    return BridgePlan(
        name=network.bridge,
        addresses=(
            *(BridgeAddress(gateway, subnet.prefixlen) for gateway, subnet in gateways),
            *(BridgeAddress(vip, netlink.HOST_PREFIX) for vip in vips),
        ),
        mtu=network.mtu,
        mac_address=next(mac_of(gateway) for gateway, subnet in gateways if subnet.version == 4),
        route_localnet=not network.internal,
    )
