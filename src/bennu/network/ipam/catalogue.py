"""The networks this host has, durable, and the address pools of each, which are not."""

import contextlib
import ipaddress
import re
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from bennu.errors import BennuError, Forbidden, InvalidParameter, NotFound
from bennu.network.ipam.addresses import AddressPool, NoFreeAddress, Subnet, mac_of
from bennu.network.model import (
    ENDPOINT_INTERFACE,
    ENDPOINT_SYSCTLS,
    INTERFACE_SYSCTL,
    Endpoint,
    EndpointRequest,
    Network,
)
from bennu.store import Delete, Put, Store, Transaction, aside

PREFIX: Final = "networks/"
# The kernel puts a number for `%d`, and refuses any other `%`; it counts bytes, and sees a space in A0.
INTERFACE_NAME: Final = re.compile(rb"[^\s/:%\x00-\x1f\x7f\xa0]{1,15}\Z")
TAKEN_NAMES: Final = frozenset({".", "..", "all", "default", "lo"})  # by folders, by /proc/sys/net, and by loopback
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Network).decode


def pools_of(network: Network) -> list[AddressPool]:
    """Make an empty address pool for each subnet of the network; a configuration network has none."""
    if network.config_only:
        return []
    return [AddressPool.of(pool.subnet, pool.gateway, pool.ip_range, pool.aux.values()) for pool in network.ipam]


def _read(value: bytes) -> tuple[Network, list[AddressPool]]:
    """Decode a stored network. Raises: anything, when the record is damaged."""
    network = _decode(value)
    return network, pools_of(network)


def new_network_id(*, in_swarm: bool = False) -> str:
    """Make a random id: 64 hexadecimal digits; of a network of a swarm 25 digits of base 36, as swarmkit's identity."""
    if in_swarm:
        return "".join(secrets.choice("0123456789abcdefghijklmnopqrstuvwxyz") for _ in range(25))
    return secrets.token_hex(32)


class Catalogue:
    """All networks by id, in order of creation. A network is in here only after it is on disk."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._networks: dict[str, Network] = {}
        self._pools: dict[str, list[AddressPool]] = {}
        self._leaving: set[str] = set()

    async def load(self) -> None:
        """Read all networks from the store; damaged records are set aside."""
        for network, pools in sorted(await aside.load(self._store, PREFIX, _read), key=lambda pair: pair[0].created_ns):
            self._networks[network.id], self._pools[network.id] = network, pools

    async def add(self, network: Network, *, is_wish: bool = False) -> None:
        """Store the network, then show it. Raises: Unavailable.

        `is_wish`: a client asked for it, so it is refused on a full disk.
        """
        await self._store.commit(Transaction([Put(PREFIX + network.id, _encode(network))], adds=is_wish))
        self._enter(network)

    async def remove(self, network: Network) -> None:
        """Delete the network from disk, then hide it. Raises: Unavailable."""
        await self._store.commit(Transaction([Delete(PREFIX + network.id)]))
        self._networks.pop(network.id, None)
        self._pools.pop(network.id, None)

    async def add_predefined(self) -> None:
        """Store `host` and `none` if they are missing. `bridge` has properties and is made elsewhere."""
        for name, driver in (("host", "host"), ("none", "null")):
            if self.named(name) is None:
                await self.add(Network(id=new_network_id(), name=name, created_ns=time.time_ns(), driver=driver))

    def _enter(self, network: Network) -> None:
        self._networks[network.id], self._pools[network.id] = network, pools_of(network)

    def __iter__(self) -> Iterator[Network]:
        return iter(list(self._networks.values()))

    def get(self, network_id: str) -> Network | None:
        """Return a network by full id."""
        return self._networks.get(network_id)

    def named(self, name: str) -> Network | None:
        """Return a network by name."""
        return next((network for network in self._networks.values() if network.name == name), None)

    def find(self, ref: str) -> Network:
        """Find a network by full id, name, or the beginning of an id, in this order; `default` means `bridge`.

        Raises: NotFound, InvalidParameter (ambiguous).
        """
        if not ref:
            raise InvalidParameter("invalid network name or ID: value is empty")
        ref_name = "bridge" if ref == "default" else ref
        found = self._networks.get(ref) or self.named(ref_name)
        if found is not None and found.id not in self._leaving:
            return found
        staying = [network for network in self._networks.values() if network.id not in self._leaving]
        matches = [network for network in staying if network.id.startswith(ref)]
        if len(matches) > 1:
            raise InvalidParameter(f"network {ref} is ambiguous ({len(matches)} matches found based on ID prefix)")
        if not matches:
            raise NotFound(f"network {ref} not found")
        return matches[0]

    @contextlib.contextmanager
    def leaving(self, network: Network) -> Iterator[None]:
        """Hide the network from `find` while it is taken down, so that no container joins it."""
        self._leaving.add(network.id)
        try:
            yield
        finally:
            self._leaving.discard(network.id)

    def subnets(self) -> list[Subnet]:
        """List the subnets of all networks."""
        return [pool.subnet for pools in self._pools.values() for pool in pools]

    def allocate(self, network: Network, request: EndpointRequest) -> dict[int, tuple[AddressPool, str]]:
        """Allocate an address of each family that the network has; by family (4, 6), with the pool it is from.

        Raises: NotFound (removed meanwhile), NoFreeAddress, AddressTaken, InvalidParameter (`check_request`); then
        nothing is allocated.
        """
        self.find(network.id)
        if network.config_only:
            raise Forbidden("cannot create endpoint on configuration-only network")
        check_request(network, request)
        allocated: dict[int, tuple[AddressPool, str]] = {}
        try:
            wishes = [(4, request.ipv4_address), *([(6, request.ipv6_address)] if request.ipv6 else [])]
            for version, wanted in wishes:
                pools = [pool for pool in self._pools[network.id] if pool.subnet.version == version]
                if wanted:
                    pool = next(pool for pool in pools if ipaddress.ip_address(wanted) in pool.subnet)
                    allocated[version] = (pool, pool.allocate_exactly(wanted))
                elif pools:
                    allocated[version] = _allocate_any(network, version, pools)
        except BennuError:
            for pool, address in allocated.values():
                pool.release(address)
            raise
        return allocated

    def adopt(self, endpoint: Endpoint) -> None:
        """Count the addresses of a living sandbox's endpoint as allocated."""
        for address in filter(None, (endpoint.ip_address, endpoint.ipv6_address)):
            self.reserve_address(endpoint.network_id, address)

    def release(self, endpoint: Endpoint) -> None:
        """Release the endpoint's addresses. Idempotent; the network may be gone meanwhile."""
        for address in filter(None, (endpoint.ip_address, endpoint.ipv6_address)):
            self.release_address(endpoint.network_id, address)

    def allocate_addresses(self, networks: Sequence[Network]) -> list[str]:
        """Allocate an IPv4 address of each network, for a virtual address of a service.

        Raises: NoFreeAddress; then nothing is allocated.
        """
        allocated: list[tuple[AddressPool, str]] = []
        try:
            for network in networks:
                allocated.append(
                    _allocate_any(network, 4, [b for b in self._pools[network.id] if b.subnet.version == 4])
                )
        except BennuError:
            for pool, address in allocated:
                pool.release(address)
            raise
        return [address for _, address in allocated]

    def reserve_address(self, network_id: str, address: str) -> bool:
        """Count an address as allocated; False if the network has no such address."""
        pool = self._pool_of(network_id, address)
        if pool is not None:
            pool.adopt(address)
        return pool is not None

    def release_address(self, network_id: str, address: str) -> None:
        """Release one address. Idempotent; the network may be gone meanwhile."""
        if (pool := self._pool_of(network_id, address)) is not None:
            pool.release(address)

    def gateways(self, network: Network) -> dict[int, str]:
        """Return where the default routes lead, by family (4, 6)."""
        return {pool.version: pool.way_out for pool in network.ipam if pool.way_out}

    def _pool_of(self, network_id: str, address: str) -> AddressPool | None:
        parsed = ipaddress.ip_address(address)
        pools = self._pools.get(network_id, [])
        return next((b for b in pools if b.subnet.version == parsed.version and parsed in b.subnet), None)


def check_request(network: Network, request: EndpointRequest) -> None:
    """Check whether the network can ever grant the request. Raises: InvalidParameter with every problem, as dockerd."""
    wanted = [(4, request.ipv4_address), (6, request.ipv6_address)]
    problems = []
    if network.is_predefined and any(address for _, address in wanted):
        problems.append("user specified IP address is supported on user defined networks only")
    elif not network.is_predefined:
        problems += [problem for version, address in wanted if (problem := _address_problem(network, version, address))]
    if request.aliases and not network.has_names:
        problems.append("network-scoped alias is supported only for containers in user defined networks")
    problems += [f"invalid link-local IP address: {text}" for text in request.link_local_ips if not _is_usable(text)]
    problems += find_option_problems(request.driver_opts or {})
    if problems:
        raise InvalidParameter("invalid endpoint settings:\n" + "\n".join(problems))


def _address_problem(network: Network, version: int, wanted: str) -> str:
    if not wanted:
        return ""
    try:
        address = ipaddress.ip_address(wanted)
    except ValueError:
        return f"invalid IPv{version} address: {wanted[:100]}"
    if address.version != version or address.is_unspecified:
        return f"invalid IPv{version} address: {wanted}"
    asked = [ipaddress.ip_network(pool.subnet) for pool in network.ipam if pool.asked]
    subnets = [subnet for subnet in asked if subnet.version == version]
    if not subnets:
        return "user specified IP address is supported only when connecting to networks with user configured subnets"
    if not any(address in subnet for subnet in subnets):
        return f"no configured subnet or ip-range contain the IP address {wanted}"
    return ""


def _is_usable(text: str) -> bool:
    try:
        return not ipaddress.ip_address(text).is_unspecified
    except ValueError:
        return False


def find_option_problems(options: Mapping[str, str]) -> list[str]:
    """List what is wrong with the options of an endpoint. Pure."""
    problems = []
    name = options.get(ENDPOINT_INTERFACE, "")
    if name and (name in TAKEN_NAMES or not INTERFACE_NAME.match(name.encode())):
        problems.append(f"invalid interface name '{name}'")
    problems += [
        f"unrecognised network interface sysctl '{entry}'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', "
        "'X' must be 'ipv4', 'ipv6' or 'mpls'"
        for entry in options.get(ENDPOINT_SYSCTLS, "").split(",")
        if ENDPOINT_SYSCTLS in options and not INTERFACE_SYSCTL.match(entry)
    ]
    return problems


def _allocate_any(network: Network, version: int, pools: Iterable[AddressPool]) -> tuple[AddressPool, str]:
    for pool in pools:
        try:
            return pool, pool.allocate()
        except NoFreeAddress:
            continue
    raise NoFreeAddress(
        f"no available IPv{version} addresses on this network's address pools: {network.name} ({network.id})"
    )


def new_endpoint(
    network: Network,
    request: EndpointRequest,
    allocated: dict[int, tuple[AddressPool, str]],
    gateways: dict[int, str],
    *,
    container_id: str,
    interface: str,
    host_interface: str,
) -> Endpoint:
    """Make the endpoint that has these addresses.

    `interface` is the name inside the container, `host_interface` the other end of the veth pair.
    """
    endpoint = Endpoint(
        endpoint_id=secrets.token_hex(32),
        network_id=network.id,
        network_name=network.name,
        interface=interface,
        host_interface=host_interface,
        mac_address=request.mac_address,
        gw_priority=request.gw_priority,
        container_name=request.container_name,
        aliases=list(request.aliases),
        links=dict(request.links),
        driver_opts=request.driver_opts,
        asked_ipv4=request.ipv4_address,
        asked_ipv6=request.ipv6_address,
        link_local_ips=list(request.link_local_ips),
    )
    if network.has_names:
        endpoint.dns_names = dns_names(request, container_id)
    if 4 in allocated:
        pool, endpoint.ip_address = allocated[4]
        endpoint.ip_prefix_len = pool.subnet.prefixlen
        endpoint.gateway = "" if network.internal else gateways.get(4, "")
        endpoint.mac_address = endpoint.mac_address or mac_of(endpoint.ip_address)
    if 6 in allocated:
        pool, endpoint.ipv6_address = allocated[6]
        endpoint.ipv6_prefix_len = pool.subnet.prefixlen
        endpoint.ipv6_gateway = "" if network.internal else gateways.get(6, "")
        endpoint.mac_address = endpoint.mac_address or mac_of(endpoint.ipv6_address)
    return endpoint


def dns_names(request: EndpointRequest, container_id: str) -> list[str]:
    """List the names in the embedded DNS: container name, aliases, short id, host name; each once, in this order.

    moby, daemon/container_operations.go, buildEndpointDNSNames.
    """
    names = [request.container_name, *request.aliases, container_id[:12], request.hostname]
    return list(dict.fromkeys(name for name in names if name))


def check_not_connected(endpoints: Iterable[Endpoint], network: Network, container_name: str) -> None:
    """Refuse a second endpoint on one network. Raises: Forbidden."""
    if any(endpoint.network_id == network.id for endpoint in endpoints):
        raise Forbidden(f"endpoint with name {container_name} already exists in network {network.name}")
