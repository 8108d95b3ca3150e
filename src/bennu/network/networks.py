"""The networks of this host and the sandboxes on them: the one door for the rest of the engine.

What holds is in the kernel; what should hold is in memory (`_sandboxes`, the catalogue) and, durably, in the
containers' records and the store. `open` makes the first agree with the second, and so does `reconcile` later.
Order of a start: addresses and ports are taken in memory, then the namespace is furnished while the rules are
written; whatever fails, all of it is taken back. Order of an end: rules first, then ports, then the slow deletion in
the kernel, and only after that the addresses may be lent again.
"""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pyroute2.netlink.exceptions import NetlinkError

from bennu.errors import BennuError
from bennu.model import PublishedPort
from bennu.network import host, links, netns
from bennu.network.catalogue import (
    Catalogue,
    check_aliases,
    check_not_connected,
    new_endpoint,
)
from bennu.network.held import HeldPorts, PortTaken
from bennu.network.model import Endpoint, EndpointRequest, Network, PortRequest, Resolver, Sandbox
from bennu.network.netns import finish, in_own_thread
from bennu.network.nft import Firewall
from bennu.network.pool import Graveyard, Namer, Pool, Prepared, Remains
from bennu.network.rules import BridgeRules, Forward, Plan
from bennu.store import Store

DEFAULT_ROOT: Final = Path("/var/lib/bennu")
RECONCILE_EVERY_S: Final = 2.0
EventSink = Callable[[str, str, str, Mapping[str, str]], Awaitable[None]]
log = logging.getLogger(__name__)


class NetworkFailure(BennuError):
    """The kernel refused something about a network; the text says what."""


class Networks:
    """All networks and sandboxes of one daemon. `open` before anything else."""

    def __init__(
        self,
        store: Store,
        data_root: Path,
        exec_root: Path,
        *,
        bridge: str = "",
        bip: str = "",
        on_event: EventSink | None = None,
        ready: int = 3,
    ) -> None:
        tag = hashlib.sha256(str(data_root.absolute()).encode()).hexdigest()[:8]
        is_default = data_root.absolute() == DEFAULT_ROOT
        self.bridge = bridge or ("bennu0" if is_default else f"bennu-{tag}")
        self.table = "bennu" if is_default else f"bennu_{tag}"
        self._bip = bip
        self._on_event = on_event
        self._namer = Namer(tag, exec_root / "netns")
        self._catalogue = Catalogue(store)
        self._held = HeldPorts()
        self._sandboxes: dict[str, Sandbox] = {}
        self._forwards: dict[str, list[Forward]] = {}  # by container
        self._bridged: dict[str, BridgeRules] = {}  # networks whose bridge is up, by id
        self._firewall = Firewall(self.table, self._plan)
        self._graveyard = Graveyard()
        self._pool = Pool(self._namer, self._graveyard, ready)
        self._tasks: set[asyncio.Task[None]] = set()

    # --- the daemon's life --------------------------------------------------------------------------------------

    async def open(self, known: Mapping[str, Sandbox]) -> None:
        """Make the kernel agree with what is recorded: bridges, sandboxes of `known` (by container id), rules.

        What is ours and belongs to nothing is deleted; nothing else is touched. Raises: BennuError.
        """
        self._namer.folder.mkdir(parents=True, exist_ok=True)
        await self._catalogue.load()
        await self._catalogue.add_predefined()
        await host.ensure_default_bridge(self._catalogue, self.bridge, self._bip)
        host.enable_forwarding()
        for network in self._catalogue:
            await self._raise_bridge(network)
        for container_id, sandbox in known.items():
            self._adopt(container_id, sandbox)
        await self._delete_leftovers()
        await asyncio.to_thread(self._restore_links)
        await self._firewall.rewrite()
        self._spawn(self._pool.keep_full(), "prepare network namespaces")
        self._spawn(self._graveyard.keep_burying(), "delete network namespaces")
        self._spawn(self._keep_reconciled(), "watch the network")

    async def close(self, *, remove: bool) -> None:
        """Stop working. With `remove` nothing of ours is left in the kernel; else containers keep all they have."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._pool.drain()
        if remove:
            for container_id in list(self._sandboxes):
                await self.close_sandbox(container_id)
        await self._graveyard.finish()
        if remove:
            await self._firewall.remove()
            for network in self._catalogue:
                if network.bridge:
                    await in_own_thread(lambda name=network.bridge: links.remove_link(name))  # type: ignore[misc]
        self._held.close()

    async def settle(self) -> None:
        """Wait until all that ended is out of the kernel and the pool is full."""
        await self._graveyard.finish()
        await self._pool.wait_full()

    @property
    def prepared(self) -> Sequence[Prepared]:
        """Namespaces kept ready for the next starts."""
        return self._pool.ready

    @property
    def interface_prefix(self) -> str:
        """What the names of all our veth interfaces begin with."""
        return self._namer.prefix

    @property
    def firewall_runs(self) -> int:
        """How many nft processes have written rules so far."""
        return self._firewall.runs

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s: failed", task.get_name(), exc_info=error)

    # --- networks -----------------------------------------------------------------------------------------------

    def find(self, ref: str) -> Network:
        """Raises: NotFound, InvalidParameter (ambiguous)."""
        return self._catalogue.find(ref)

    def list(self) -> Sequence[Network]:
        return list(self._catalogue)

    def endpoints_of(self, network: Network) -> Mapping[str, Endpoint]:
        """The endpoints on it, by container id."""
        return {
            container_id: endpoint
            for container_id, sandbox in self._sandboxes.items()
            for endpoint in sandbox.endpoints
            if endpoint.network_id == network.id
        }

    async def _raise_bridge(self, network: Network) -> None:
        if not network.bridge:
            return
        try:
            await host.raise_bridge(network)
        except (OSError, NetlinkError) as error:
            raise NetworkFailure(f"cannot set up bridge {network.bridge} of network {network.name}: {error}") from error
        self._bridged[network.id] = BridgeRules(
            name=network.bridge,
            subnets=tuple(pool.subnet for pool in network.ipam),
            masquerade=network.masquerade,
            icc=network.icc,
            internal=network.internal,
        )

    # --- sandboxes ----------------------------------------------------------------------------------------------

    def sandbox(self, container_id: str) -> Sandbox | None:
        return self._sandboxes.get(container_id)

    async def open_sandbox(
        self,
        container_id: str,
        endpoints: Sequence[EndpointRequest],
        ports: Sequence[PortRequest],
        *,
        dns: Sequence[str] = (),
    ) -> Sandbox:
        """A namespace on the networks asked for, with the ports published; no endpoints: loopback only.

        Raises: BennuError; then, as after a cancellation, nothing of it is left.
        """
        await self.close_sandbox(container_id)
        wanted = [(self._catalogue.find(request.network), request) for request in endpoints]
        has_links = any(network.bridge for network, _ in wanted)
        prepared = await self._prepared(has_links)
        sandbox = Sandbox(
            sandbox_id=prepared.sandbox_id,
            netns=str(prepared.path),
            resolver=Resolver(servers=list(dns)),
            requested_ports=list(ports),
        )
        self._sandboxes[container_id] = sandbox
        try:
            for network, request in wanted:
                self._add_endpoint(container_id, sandbox, network, request, prepared)
            self._take_ports(container_id, sandbox)
            await self._furnish(sandbox)
        except BaseException:
            await finish(asyncio.ensure_future(self.close_sandbox(container_id)))
            raise
        return sandbox

    async def close_sandbox(self, container_id: str) -> None:
        """Its rules are gone when this returns; the kernel's slow part happens later. Idempotent."""
        sandbox = self._sandboxes.pop(container_id, None)
        if sandbox is None:
            return
        had_ports = self._forwards.pop(container_id, None)
        try:
            if had_ports:
                await self._firewall.apply()
        finally:
            self._held.release(sandbox.ports)
            self._graveyard.bury(
                Remains(
                    Path(sandbox.netns),
                    tuple(endpoint.host_interface for endpoint in sandbox.endpoints),
                    lambda: self._give_back(sandbox.endpoints),
                )
            )

    async def _prepared(self, has_links: bool) -> Prepared:
        try:
            return await (self._pool.take() if has_links else self._pool.make(with_pair=False))
        except (OSError, NetlinkError) as error:
            raise NetworkFailure(f"cannot make a network namespace: {error}") from error

    def _add_endpoint(
        self, container_id: str, sandbox: Sandbox, network: Network, request: EndpointRequest, prepared: Prepared | None
    ) -> Endpoint:
        """Take addresses and names on a network. Raises: BennuError; then nothing is taken."""
        check_not_connected(sandbox.endpoints, network, request.container_name)
        check_aliases(network, request)
        number = sum(1 for endpoint in sandbox.endpoints if endpoint.interface)
        first = prepared is not None and number == 0
        host_interface = prepared.host_interface if prepared is not None and first else self._namer.interface()
        endpoint = new_endpoint(
            network,
            request,
            self._catalogue.lend(network, request),
            self._catalogue.gateways(network),
            container_id=container_id,
            interface=f"eth{number}" if network.bridge else "",
            host_interface=host_interface if network.bridge else "",
        )
        sandbox.endpoints.append(endpoint)
        return endpoint

    def _give_back(self, endpoints: Iterable[Endpoint]) -> None:
        for endpoint in endpoints:
            self._catalogue.give_back(endpoint)

    async def _furnish(self, sandbox: Sandbox) -> None:
        """Links and rules at the same time. Raises: NetworkFailure, FirewallFailure."""
        work = [in_own_thread(lambda: self._connect_all(sandbox))]
        if sandbox.ports:
            work.append(self._firewall.apply())
        for outcome in await asyncio.gather(*work, return_exceptions=True):
            if isinstance(outcome, OSError | NetlinkError):
                raise NetworkFailure(f"cannot connect the container to its network: {outcome}") from outcome
            if isinstance(outcome, BaseException):
                raise outcome

    def _connect_all(self, sandbox: Sandbox) -> None:
        """Blocking, in a thread of its own: it ends inside the sandbox's namespace."""
        connected = [(endpoint, self._network_of(endpoint)) for endpoint in sandbox.endpoints if endpoint.interface]
        for endpoint, _ in connected[1:]:
            links.add_pair_into(sandbox.netns, endpoint.host_interface, endpoint.interface)
        for endpoint, network in connected:
            links.plug_in(endpoint.host_interface, network.bridge, network.mtu)
        if connected:
            way_out = sandbox.gateway_endpoint()
            netns.enter(sandbox.netns)
            for endpoint, network in connected:
                links.configure(endpoint, network.mtu, with_routes=endpoint is way_out)

    def _network_of(self, endpoint: Endpoint) -> Network:
        network = self._catalogue.get(endpoint.network_id)
        if network is None:
            raise NetworkFailure(f"network {endpoint.network_name} is gone")
        return network

    # --- published ports ----------------------------------------------------------------------------------------

    def _take_ports(self, container_id: str, sandbox: Sandbox) -> None:
        """Raises: NetworkFailure with dockerd's words; what was taken until then is in the sandbox, to be released."""
        target = sandbox.gateway_endpoint()
        if target is None:  # nothing leads into it from outside
            return
        network = self._network_of(target)
        for request in sandbox.requested_ports:
            try:
                sandbox.ports += self._held.hold(request, network.host_binding)
            except PortTaken as error:
                raise NetworkFailure(
                    "driver failed programming external connectivity on endpoint "
                    f"{target.container_name} ({target.endpoint_id}): {error}"
                ) from error
        self._forwards[container_id] = forwards_to(target, sandbox.ports)

    def _plan(self) -> Plan:
        forwards = frozenset(forward for entries in self._forwards.values() for forward in entries)
        return Plan(tuple(self._bridged[key] for key in sorted(self._bridged)), forwards)

    # --- agreeing with the kernel -------------------------------------------------------------------------------

    def _adopt(self, container_id: str, sandbox: Sandbox) -> None:
        self._sandboxes[container_id] = sandbox
        for endpoint in sandbox.endpoints:
            self._catalogue.adopt(endpoint)
        for port in sandbox.ports:
            try:
                self._held.adopt(port)
            except PortTaken as error:
                log.warning("a program of the host took a port of container %s: %s", container_id[:12], error)
        target = sandbox.gateway_endpoint()
        if target is not None and sandbox.ports:
            self._forwards[container_id] = forwards_to(target, sandbox.ports)

    async def _delete_leftovers(self) -> None:
        """Namespaces and interfaces that bear our mark and belong to no sandbox: a daemon died over them."""
        files = {Path(sandbox.netns) for sandbox in self._sandboxes.values()}
        pairs = {endpoint.host_interface for s in self._sandboxes.values() for endpoint in s.endpoints}
        present = await asyncio.to_thread(links.list_links)
        orphans = [name for name in present if name.startswith(self._namer.prefix) and name not in pairs]
        paths = [path for path in self._namer.folder.iterdir() if path not in files]
        for path in paths:
            self._graveyard.bury(Remains(path, (), lambda: None))
        self._graveyard.bury(Remains(None, tuple(orphans), lambda: None))
        await self._graveyard.finish()

    def _restore_links(self) -> None:
        """Blocking. Put back what is missing of the sandboxes: their namespace, their pairs, the bridge they are on."""
        present = links.list_links()
        for container_id, sandbox in self._sandboxes.items():
            try:
                self._restore_sandbox(sandbox, present)
            except (OSError, NetlinkError, BennuError) as error:
                log.warning("cannot restore the network of container %s: %s", container_id[:12], error)

    def _restore_sandbox(self, sandbox: Sandbox, present: Mapping[str, links.LinkState]) -> None:
        path = Path(sandbox.netns)
        if not netns.is_pinned(path):
            path.unlink(missing_ok=True)
            netns.run_in_own_thread(lambda: links.make_namespace(path, ""))
        for endpoint in sandbox.endpoints:
            if not endpoint.interface:
                continue
            network = self._network_of(endpoint)
            state = present.get(endpoint.host_interface)
            if state is None:
                log.warning("interface %s of a container is gone, making it anew", endpoint.host_interface)
                netns.run_in_own_thread(lambda e=endpoint, n=network: self._rebuild(sandbox, e, n))  # type: ignore[misc]
            elif state.master != network.bridge:
                links.plug_in(endpoint.host_interface, network.bridge, network.mtu)

    def _rebuild(self, sandbox: Sandbox, endpoint: Endpoint, network: Network) -> None:
        links.add_pair_into(sandbox.netns, endpoint.host_interface, endpoint.interface)
        links.plug_in(endpoint.host_interface, network.bridge, network.mtu)
        netns.enter(sandbox.netns)
        links.configure(endpoint, network.mtu, with_routes=endpoint is sandbox.gateway_endpoint())

    async def _keep_reconciled(self) -> None:
        while True:
            await asyncio.sleep(RECONCILE_EVERY_S)
            try:
                await self.reconcile()
            except (BennuError, OSError, NetlinkError) as error:
                log.warning("cannot put the network right: %s", error)

    async def reconcile(self) -> None:
        """Put back what others took away: our rules, our bridges. Raises: BennuError, OSError, NetlinkError."""
        if not await self._firewall.is_intact():
            log.warning("the rules of table %s were changed by others; writing them anew", self.table)
            await self._firewall.rewrite()
        present = await asyncio.to_thread(links.list_links)
        gone = [network for network in self._catalogue if network.id in self._bridged and network.bridge not in present]
        for network in gone:
            log.warning("bridge %s of network %s is gone; making it anew", network.bridge, network.name)
            await self._raise_bridge(network)
        if gone:
            await asyncio.to_thread(self._restore_links)


def forwards_to(target: Endpoint, ports: Iterable[PublishedPort]) -> list[Forward]:
    """The rules that lead published ports to an endpoint; a family the endpoint lacks has none."""
    found = []
    for port in ports:
        address = target.ipv6_address if ":" in port.host_ip else target.ip_address
        if address:
            found.append(Forward(port.proto, port.host_ip, port.host_port, address, port.container_port))
    return found
