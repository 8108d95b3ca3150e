"""Opens, changes, repairs and closes sandboxes: a container's namespace, endpoints and published ports.

Start: addresses and ports are allocated in memory, then the namespace is attached while the rules are written; on any
failure all of it is undone. End: first the rules go, then the ports, then the namespace (later, it is slow), and only
then are the addresses free again (`test_addresses_are_not_reused_while_the_old_namespace_may_live`).
"""

import asyncio
import itertools
import logging
import secrets
from collections.abc import Collection, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from bennu.errors import BennuError
from bennu.network.announcer import Announcer
from bennu.network.dns.files import upstream_servers
from bennu.network.dns.host_resolv_conf import read_resolv_conf
from bennu.network.dns.names import NameIndex, ServiceNames
from bennu.network.dns.server import NameServer
from bennu.network.dns.sockets import close_sockets
from bennu.network.ipam.addresses import AddressPool, AddressTaken, NoFreeAddress
from bennu.network.ipam.catalogue import Catalogue, check_not_connected, new_endpoint
from bennu.network.model import (
    ENDPOINT_INTERFACE,
    Endpoint,
    EndpointRequest,
    Network,
    NetworkFailure,
    PortLink,
    PortRequest,
    Resolver,
    Sandbox,
)
from bennu.network.namespace_pool import (
    InterfaceNamer,
    NamespacePool,
    NamespaceReaper,
    PendingTeardown,
    PreparedNamespace,
)
from bennu.network.namespaces import interface_sysctls, netlink, netns
from bennu.network.namespaces.netns import finish, in_own_thread
from bennu.network.nat.ip_forwarding import rules_see_bridged
from bennu.network.nat.port_mapper import PortMapper

log = logging.getLogger(__name__)


class Sandboxes:
    """All sandboxes of the daemon, by container id."""

    def __init__(
        self,
        catalogue: Catalogue,
        namer: InterfaceNamer,
        pool: NamespacePool,
        reaper: NamespaceReaper,
        port_mapper: PortMapper,
        services: ServiceNames,
    ) -> None:
        self._catalogue = catalogue
        self._namer = namer
        self._pool = pool
        self._reaper = reaper
        self._port_mapper = port_mapper
        self._open: dict[str, Sandbox] = {}
        self._changing: set[str] = set()  # containers whose sandbox is being opened or connected: not to be repaired
        self._broken: set[str] = set()  # containers whose last repair failed
        self._announcer = Announcer()
        self._services = services
        self._index: NameIndex | None = None
        self.name_server = NameServer(self._names, lambda: upstream_servers(read_resolv_conf()))

    def get(self, container_id: str) -> Sandbox | None:
        return self._open.get(container_id)

    def items(self) -> Sequence[tuple[str, Sandbox]]:
        return list(self._open.items())

    def close_sockets(self) -> None:
        """Stop the DNS and announcements and free the ports' sockets; what is in the kernel stays."""
        self._announcer.close()
        self.name_server.close()
        self._port_mapper.close()

    def rename(self, container_id: str, name: str) -> None:
        """Rename the container in its endpoints and in the DNS."""
        sandbox = self._open.get(container_id)
        for endpoint in sandbox.endpoints if sandbox else ():
            endpoint.dns_names = [name if known == endpoint.container_name else known for known in endpoint.dns_names]
            endpoint.container_name = name
        self._index = None

    # --- start and end ------------------------------------------------------------------------------------------

    async def open(
        self,
        container_id: str,
        endpoints: Sequence[EndpointRequest],
        ports: Sequence[PortRequest],
        dns: Sequence[str] = (),
        links: Sequence[PortLink] = (),
    ) -> Sandbox:
        """Open a sandbox (see `Networks.open_sandbox`). Raises: BennuError; then nothing is left."""
        await self.close(container_id)
        wanted = [(self._catalogue.find(request.network), request) for request in endpoints]
        if any(network.driver == "host" for network, _ in wanted):
            return self._open_host(container_id, wanted)
        prepared = await self._prepared([network for network, _ in wanted])
        sandbox = Sandbox(
            sandbox_id=prepared.sandbox_id,
            netns=str(prepared.path),
            resolver=Resolver(servers=list(dns)),
            requested_ports=list(ports),
            links=list(links),
        )
        self._open[container_id] = sandbox
        self._changing.add(container_id)
        try:
            for network, request in wanted:
                await self._add_endpoint(container_id, sandbox, network, request, prepared.host_interface)
            _use_pair(sandbox, prepared.host_interface)
            self._port_mapper.map(container_id, sandbox)
            await self._attach(container_id, sandbox, prepared)
        except BaseException:
            close_sockets(prepared.dns)
            await finish(asyncio.ensure_future(self.close(container_id)))
            raise
        finally:
            self._changing.discard(container_id)
        return sandbox

    def _open_host(self, container_id: str, wanted: Sequence[tuple[Network, EndpointRequest]]) -> Sandbox:
        """Open a sandbox in the host's own namespace: an endpoint on the network `host`, and nothing in the kernel."""
        sandbox = Sandbox(sandbox_id=secrets.token_hex(32), netns="")
        sandbox.endpoints = [
            new_endpoint(network, request, {}, {}, container_id=container_id, interface="", host_interface="")
            for network, request in wanted
        ]
        self._open[container_id] = sandbox
        return sandbox

    async def set_links(self, container_id: str, links: Sequence[PortLink]) -> None:
        """Replace the ports that the container's links open. Raises: FirewallFailure."""
        sandbox = self._open.get(container_id)
        if sandbox is not None and sandbox.links != [*links]:
            sandbox.links = list(links)
            await self._port_mapper.apply(container_id)

    def opened_by_links(self) -> frozenset[tuple[str, PortLink]]:
        """List the ports that links open, each with the address of the container that has the link."""
        return frozenset(
            (address, link)
            for sandbox in self._open.values()
            if sandbox.links
            for endpoint in sandbox.endpoints
            if endpoint.network_name == "bridge"
            for link in sandbox.links
            if self._has_address(link)
            if (address := endpoint.address_of(6 if ":" in link.address else 4))
        )

    def _has_address(self, link: PortLink) -> bool:
        """Tell whether the linked container still has the address: the next to have it is another."""
        other = self._open.get(link.container)
        found = other.endpoints if other else ()
        return not link.container or any(link.address in (one.ip_address, one.ipv6_address) for one in found)

    def _is_linked(self, container_id: str) -> bool:
        """Tell whether links open ports to it, or of it."""
        own = self._open.get(container_id)
        others = (link.container for sandbox in self._open.values() for link in sandbox.links)
        return bool(own and own.links) or container_id in others

    async def close(self, container_id: str) -> None:
        """Remove the rules and free the ports; the namespace is deleted later. Idempotent."""
        was_linked, sandbox = self._is_linked(container_id), self._open.pop(container_id, None)
        if sandbox is None:
            return
        self._index = None
        self._broken.discard(container_id)
        self.name_server.stop(container_id)
        try:
            await self._port_mapper.unmap(container_id, sandbox)
            if was_linked:
                await self._port_mapper.apply(container_id)
        finally:
            self._schedule_teardown(Path(sandbox.netns) if sandbox.netns else None, sandbox.endpoints)

    def _schedule_teardown(self, path: Path | None, endpoints: Sequence[Endpoint]) -> None:
        endpoints = list(endpoints)
        self._announcer.stop(endpoint.endpoint_id for endpoint in endpoints)
        names = tuple(endpoint.host_interface for endpoint in endpoints if endpoint.host_interface)
        ips = tuple(endpoint.ip_address for endpoint in endpoints if endpoint.ip_address)
        self._reaper.schedule(PendingTeardown(path, names, lambda: self._release(endpoints), ips))

    def _release(self, endpoints: Iterable[Endpoint]) -> None:
        for endpoint in endpoints:
            self._catalogue.release(endpoint)

    async def _prepared(self, networks: Sequence[Network]) -> PreparedNamespace:
        try:
            if any(network.bridge for network in networks):
                return await self._pool.take(named=any(network.has_names for network in networks))
            return await self._pool.make(with_pair=False)
        except (OSError, NetlinkError) as error:
            raise NetworkFailure(f"cannot make a network namespace: {error}") from error

    async def _add_endpoint(
        self, container_id: str, sandbox: Sandbox, network: Network, request: EndpointRequest, ready_interface: str = ""
    ) -> Endpoint:
        """Allocate addresses and names on a network. Raises: BennuError; then nothing is allocated.

        `ready_interface`: the host's end of the pair that the namespace has already, for the first endpoint.
        """
        check_not_connected(sandbox.endpoints, network, request.container_name)
        allocated = await self._allocate(network, request)
        host_interface = self._namer.interface()
        interface = choose_interface(sandbox.endpoints, network, request, host_interface) if network.bridge else ""
        ready = ready_interface if interface == netlink.PREPARED_NAME else ""
        endpoint = new_endpoint(
            network,
            request,
            allocated,
            self._catalogue.gateways(network),
            container_id=container_id,
            interface=interface,
            host_interface=(ready or host_interface) if network.bridge else "",
        )
        sandbox.endpoints.append(endpoint)
        self._index = None
        return endpoint

    async def _allocate(self, network: Network, request: EndpointRequest) -> dict[int, tuple[AddressPool, str]]:
        """Allocate addresses on a network, if need be after pending deletions have released some.

        Raises: NoFreeAddress, AddressTaken, InvalidParameter; then nothing is allocated.
        """
        try:
            return self._catalogue.allocate(network, request)
        except (NoFreeAddress, AddressTaken):  # perhaps by a sandbox that has ended but is not deleted yet
            await self._reaper.finish()
            return self._catalogue.allocate(network, request)

    async def _attach(self, container_id: str, sandbox: Sandbox, prepared: PreparedNamespace) -> None:
        """Attach the namespace, write rules, start the DNS, all at once. Raises: NetworkFailure, FirewallFailure."""
        attachments = self._attachments(sandbox, sandbox.endpoints, prepared.host_interface)
        work = [self._link(sandbox, attachments)] if attachments else []
        if sandbox.ports or self._is_linked(container_id):
            work.append(self._port_mapper.apply(container_id))
        if sandbox.has_embedded_dns:
            sockets, prepared.dns = prepared.dns, None  # the name server's from now on
            work.append(self.name_server.serve(container_id, sandbox, sockets))
        await all_of(work)

    async def _link(self, sandbox: Sandbox, attachments: Sequence[netlink.VethAttachment]) -> None:
        """Attach the namespace to bridges, and let the announcements of that be repeated."""
        for begun in await in_own_thread(lambda: netlink.attach(sandbox.netns, attachments)):
            endpoint = next(one for one in sandbox.endpoints if one.endpoint_id == begun.endpoint_id)
            network = self._network_of(endpoint)
            self._announcer.repeat(begun, network.announcements - 1, network.announcement_interval_s)

    def _attachments(
        self, sandbox: Sandbox, endpoints: Iterable[Endpoint], ready_interface: str = ""
    ) -> list[netlink.VethAttachment]:
        """Plan the attachment of endpoints. Raises: NetworkFailure.

        `ready_interface`: the host's end of the pair that the namespace has already; "": it has none.
        """
        gateway_endpoints = [(version, sandbox.gateway_endpoint(version)) for version in (4, 6)]
        return [
            netlink.VethAttachment(
                endpoint=endpoint,
                bridge=network.bridge,
                mtu=network.mtu,
                gateways=tuple(
                    endpoint.gateway_of(version) for version, other in gateway_endpoints if other is endpoint
                ),
                isolated=not network.icc and not rules_see_bridged(),
                has_pair=endpoint.host_interface == ready_interface,
                announced=network.announcements > 0,
            )
            for endpoint in endpoints
            if endpoint.interface
            for network in [self._network_of(endpoint)]
        ]

    def _network_of(self, endpoint: Endpoint) -> Network:
        network = self._catalogue.get(endpoint.network_id)
        if network is None:
            raise NetworkFailure(f"network {endpoint.network_name} is gone")
        return network

    # --- connect and disconnect while it runs -------------------------------------------------------------------

    async def connect(self, container_id: str, network: Network, request: EndpointRequest) -> Endpoint:
        """Connect an open sandbox to one more network. Raises: BennuError; then the sandbox is as before."""
        sandbox = self._require(container_id)
        self._changing.add(container_id)
        try:
            return await self._connect(container_id, sandbox, network, request)
        finally:
            self._changing.discard(container_id)

    async def _connect(
        self, container_id: str, sandbox: Sandbox, network: Network, request: EndpointRequest
    ) -> Endpoint:
        endpoint = await self._add_endpoint(container_id, sandbox, network, request)
        try:
            if endpoint.interface:
                attachments = self._attachments(sandbox, [endpoint])
                work = [self._link(sandbox, attachments)]
                if sandbox.has_embedded_dns and not self.name_server.serves(container_id):
                    work.append(self.name_server.serve(container_id, sandbox))
                await all_of(work)
            await self._port_mapper.remap(container_id, sandbox)
        except BaseException:
            await finish(asyncio.ensure_future(self.disconnect(container_id, endpoint)))
            raise
        return endpoint

    async def disconnect(self, container_id: str, endpoint: Endpoint) -> None:
        """Disconnect an open sandbox from a network; another network may become its default route.

        Raises: NetworkFailure, FirewallFailure.
        """
        sandbox = self._require(container_id)
        sandbox.endpoints.remove(endpoint)
        self._index = None
        if self._is_linked(container_id):
            await self._port_mapper.apply(container_id)
        self._schedule_teardown(None, [endpoint])
        await self._reaper.finish()
        if not sandbox.has_embedded_dns:
            self.name_server.stop(container_id)
        await all_of([in_own_thread(lambda: self._set_default_routes(sandbox))])
        await self._port_mapper.remap(container_id, sandbox)

    def _set_default_routes(self, sandbox: Sandbox) -> None:
        """Lead the default route of each family through its endpoint. Only in a thread of its own."""
        netns.enter(sandbox.netns)
        for version in (4, 6):
            gateway_endpoint = sandbox.gateway_endpoint(version)
            if gateway_endpoint is not None:
                netlink.set_gateway(gateway_endpoint.interface, gateway_endpoint.gateway_of(version))

    def _require(self, container_id: str) -> Sandbox:
        sandbox = self._open.get(container_id)
        if sandbox is None:
            raise NetworkFailure(f"container {container_id} has no network namespace")
        return sandbox

    def _names(self) -> NameIndex:
        if self._index is None:
            self._index = NameIndex(self._open.values(), self._services)
        return self._index

    # --- after the daemon was away ------------------------------------------------------------------------------

    def adopt(self, container_id: str, sandbox: Sandbox) -> None:
        """Take over the sandbox of a living container: its addresses and ports count as allocated."""
        self._open[container_id] = sandbox
        self._index = None
        for endpoint in sandbox.endpoints:
            self._catalogue.adopt(endpoint)
        self._port_mapper.adopt(container_id, sandbox)

    async def delete_leftovers(self) -> None:
        """Delete namespaces and interfaces with our mark that belong to no sandbox, after a crash."""
        files = {Path(sandbox.netns) for sandbox in self._open.values() if sandbox.netns}
        pairs = {endpoint.host_interface for s in self._open.values() for endpoint in s.endpoints}
        present = await in_own_thread(netlink.list_links)
        orphans = [name for name in present if name.startswith(self._namer.prefix) and name not in pairs]
        for path in self._namer.folder.iterdir():
            if path not in files:
                self._reaper.schedule(PendingTeardown(path, (), lambda: None))
        self._reaper.schedule(PendingTeardown(None, tuple(orphans), lambda: None))
        await self._reaper.finish()

    async def restore(self) -> None:
        """Repair all sandboxes: namespace, veth pairs, their bridges, the DNS."""
        present = await in_own_thread(netlink.list_links)
        for container_id, sandbox in self.items():
            if container_id not in self._changing and sandbox.netns:
                await self._restore(container_id, sandbox, present)

    async def repair(self, suspects: Collection[str]) -> list[str]:
        """Repair the sandboxes that lost their namespace's file, or have one of these host interfaces.

        Returns interfaces to be tried again: their sandboxes are being changed, or could not be repaired.
        """
        later = []
        for container_id, sandbox in self.items():
            if not sandbox.netns:
                continue
            names = [endpoint.host_interface for endpoint in sandbox.endpoints if endpoint.interface]
            concerned = [name for name in names if name in suspects]
            if container_id in self._changing:
                later += concerned
            elif concerned or not netns.is_pinned(sandbox.netns):
                present = await asyncio.to_thread(netlink.read_links, names)
                if not await self._restore(container_id, sandbox, present):
                    later += concerned
        return later

    async def _restore(self, container_id: str, sandbox: Sandbox, present: Mapping[str, netlink.LinkState]) -> bool:
        """Repair one sandbox; False if that failed, which is logged."""
        try:
            await asyncio.to_thread(self._restore_links, container_id, sandbox, present)
            if sandbox.has_embedded_dns and not sandbox.resolver.port:
                self.name_server.stop(container_id)
            if sandbox.has_embedded_dns and not self.name_server.serves(container_id):
                await self.name_server.serve(container_id, sandbox)
        except (OSError, NetlinkError, BennuError) as error:
            level = logging.DEBUG if container_id in self._broken else logging.WARNING  # it is tried every few seconds
            log.log(level, "cannot restore the network of container %s: %s", container_id[:12], error)
            self._broken.add(container_id)
            return False
        self._broken.discard(container_id)
        return True

    def _restore_links(self, container_id: str, sandbox: Sandbox, present: Mapping[str, netlink.LinkState]) -> None:
        """Repair namespace and veth pairs of one sandbox. Blocks. Raises: OSError, NetlinkError, NetworkFailure."""
        if not netns.is_pinned(sandbox.netns):
            _pin_again(container_id, sandbox)
        for endpoint in sandbox.endpoints:
            if not endpoint.interface:
                continue
            network = self._network_of(endpoint)
            state = present.get(endpoint.host_interface)
            if state is None:
                attachments = self._attachments(sandbox, [endpoint])
                for begun in netns.run_in_own_thread(partial(netlink.attach, sandbox.netns, attachments)):
                    begun.sock.close()
                log.warning("interface %s of a container was gone and is made anew", endpoint.host_interface)
                continue
            interface_sysctls.apply(interface_sysctls.host_veth_sysctls(endpoint.host_interface))
            if state.master != network.bridge or not state.is_up:
                netlink.reattach_host_end(*self._attachments(sandbox, [endpoint]))
                log.warning("interface %s of a container was down or astray and is put right", endpoint.host_interface)


def _pin_again(container_id: str, sandbox: Sandbox) -> None:
    """Pin the namespace again that the container's process is in, or a new one if it has none.

    Blocks. Raises: OSError.
    """
    path = Path(sandbox.netns)
    log.warning("the network namespace of container %s has lost its file %s", container_id[:12], path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    if living := netns.find_in_group(container_id):
        netns.pin(path, living)
        return
    netns.run_in_own_thread(lambda: netlink.make_namespace(path, ""))
    sandbox.resolver.port = 0  # the new namespace has no rules for the DNS yet


def choose_interface(
    endpoints: Iterable[Endpoint], network: Network, request: EndpointRequest, host_interface: str
) -> str:
    """Return the name of a new interface in the container: the one asked for, else the first free of eth0, eth1, …

    Raises: NetworkFailure when another endpoint has the name asked for.
    """
    taken = {"lo", *(endpoint.interface for endpoint in endpoints)}
    asked = (request.driver_opts or {}).get(ENDPOINT_INTERFACE, "")
    if asked and asked in taken:
        raise NetworkFailure(f'error renaming interface "{host_interface}" to "{asked}": file exists')
    free = (f"{network.interface_prefix}{number}" for number in itertools.count())
    return asked or next(name for name in free if name not in taken)


def _use_pair(sandbox: Sandbox, ready_interface: str) -> None:
    """Let the first endpoint use the ready pair if none is called eth0: the interface is renamed."""
    on_bridges = [endpoint for endpoint in sandbox.endpoints if endpoint.interface]
    if on_bridges and ready_interface not in {endpoint.host_interface for endpoint in on_bridges}:
        on_bridges[0].host_interface = ready_interface


async def all_of(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Wait until all have ended, then raise the first failure; OSError and NetlinkError as NetworkFailure."""
    for outcome in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(outcome, OSError | NetlinkError):
            raise NetworkFailure(f"cannot connect the container to its network: {outcome}") from outcome
        if isinstance(outcome, BaseException):
            raise outcome
