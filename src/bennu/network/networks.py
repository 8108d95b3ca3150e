"""The networks of this host and the sandboxes on them: the package's only entry for the rest of the engine.

The actual state is in the kernel; the wanted state is in memory and, durable, in the containers' records (sandboxes)
and the store (networks). `open` makes the kernel agree with it, and `reconcile` keeps it so.
"""

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pyroute2.netlink.exceptions import NetlinkError

from bennu.errors import BennuError, Forbidden
from bennu.network import default_bridge
from bennu.network.cluster_hooks import ClusterHooks, NoCluster
from bennu.network.creation import NetworkRequest, Surroundings, plan_network
from bennu.network.frontends import Frontend
from bennu.network.ipam.addresses import DEFAULT_POOLS
from bennu.network.ipam.catalogue import Catalogue, check_request, new_network_id
from bennu.network.lb.balancer import Balancer
from bennu.network.model import (
    Endpoint,
    EndpointRequest,
    Network,
    NetworkFailure,
    NetworkSettings,
    PortLink,
    PortRequest,
    Sandbox,
)
from bennu.network.namespace_pool import InterfaceNamer, NamespacePool, NamespaceReaper, PreparedNamespace
from bennu.network.namespaces import netlink
from bennu.network.namespaces.netns import finish, in_own_thread
from bennu.network.nat.ip_forwarding import IpForwarding, switch_off_unless_used
from bennu.network.nat.nft import Firewall
from bennu.network.nat.port_allocator import PortAllocator
from bennu.network.nat.port_mapper import PortMapper
from bennu.network.nat.rules import FAMILIES, BridgeRules, Ruleset
from bennu.network.reconciler import NetworkReconciler
from bennu.network.sandboxes import Sandboxes
from bennu.network.socket_lb.socket_lb_bpf import BpfSocketLb, DisabledSocketLb
from bennu.store import Store

DEFAULT_ROOT: Final = Path("/var/lib/bennu")
EventSink = Callable[[str, str, str, Mapping[str, str], str], Awaitable[None]]  # type, action, id, attributes, scope
DRIVER_SCOPES: Final = {"overlay": "swarm"}  # of networks whose request names none
SWARM_ACTIONS: Final = {"create": "create", "destroy": "remove"}
log = logging.getLogger(__name__)


class Networks:
    """All networks and sandboxes of one daemon. Call `open` first."""

    def __init__(
        self,
        store: Store,
        data_root: Path,
        exec_root: Path,
        settings: NetworkSettings,
        on_event: EventSink | None = None,
    ) -> None:
        """Keep the networks of one host; `on_event` is told what Docker's events tell; None: nobody is."""
        digest = hashlib.sha256(str(data_root.absolute()).encode()).digest()
        tag = digest.hex()[:8]
        is_default = data_root.absolute() == DEFAULT_ROOT
        self._settings = settings
        self.bridge = self._settings.bridge or ("bennu0" if is_default else f"bennu-{tag}")
        self.table = "bennu" if is_default else f"bennu_{tag}"
        self._on_event = on_event
        self._cluster_hooks: ClusterHooks = NoCluster()
        self._global_id = digest[8:13]  # of our IPv6 networks
        self._namer = InterfaceNamer(tag, exec_root / "netns")
        self._catalogue = Catalogue(store)
        self._bridged: dict[str, BridgeRules] = {}  # networks whose bridge is up, by id
        frontends: dict[str, Frontend] = {}
        ports_in_use = PortAllocator()
        socket_lb = (BpfSocketLb if settings.socket_lb else DisabledSocketLb)(self.table, data_root)
        self._firewall = Firewall(self.table, socket_lb, self._ruleset, frontends)
        self.balancer = Balancer(store, self._catalogue, self._firewall, ports_in_use, frontends)
        self._reaper = NamespaceReaper()
        self._pool = NamespacePool(self._namer, self._reaper, self._has_names)
        self._port_mapper = PortMapper(self._firewall, ports_in_use, self._catalogue.get, settings)
        self._sandboxes = Sandboxes(
            self._catalogue, self._namer, self._pool, self._reaper, self._port_mapper, self.balancer.names
        )
        self._changing = asyncio.Lock()  # held while the set of networks changes
        self._forwarding = IpForwarding(is_wanted=settings.ip_forward, is_guarded=not settings.ip_forward_no_drop)
        self._reconciler = NetworkReconciler(
            self._catalogue,
            self.balancer,
            self._firewall,
            self._sandboxes,
            self._forwarding,
            self._changing,
            self._set_up_bridge,
        )
        self._tasks: set[asyncio.Task[None]] = set()

    # --- the daemon's life --------------------------------------------------------------------------------------

    async def open(self, known: Mapping[str, Sandbox]) -> None:
        """Make the kernel agree with the records: bridges, the sandboxes `known` (by container id), rules.

        Interfaces and namespaces that bear our mark and belong to no sandbox are deleted; nothing foreign is touched.
        Raises: BennuError.
        """
        try:
            await self._establish(known)
        except BaseException:
            if not known:
                await self._abandon()
            raise
        self._spawn(self._pool.keep_full(), "prepare network namespaces")
        self._spawn(self._reaper.run(), "delete network namespaces")
        self._spawn(self._reconciler.run(), "watch the network")

    async def _establish(self, known: Mapping[str, Sandbox]) -> None:
        self._namer.folder.mkdir(parents=True, exist_ok=True)
        await self._catalogue.load()
        await self._catalogue.add_predefined()
        busy = {endpoint.network_id for sandbox in known.values() for endpoint in sandbox.endpoints}
        async with default_bridge.subnet_lock():  # until our routes are there for other daemons to see
            await default_bridge.ensure_default_bridge(
                self._catalogue, self.bridge, self._settings, busy, self._global_id
            )
            await default_bridge.renumber_conflicting(self._catalogue, self._settings, busy, self._global_id)
            await self.balancer.load()
            for network in self._catalogue:
                await self._set_up_bridge(network)
        for container_id, sandbox in known.items():
            self._sandboxes.adopt(container_id, sandbox)
        self.balancer.allocate_ports()
        await self._sandboxes.delete_leftovers()
        await self._sandboxes.restore()
        await self._forwarding.refresh()
        await self._firewall.rewrite()
        async with default_bridge.subnet_lock():
            await self._reconciler.enable_forwarding()

    async def _abandon(self) -> None:
        """Clean up after a failed start without containers: unused bridges would keep subnets from others."""
        for network in self._catalogue:
            with contextlib.suppress(OSError, NetlinkError):
                await _delete_bridge(network)
        with contextlib.suppress(OSError, BennuError):
            await self._firewall.remove()
            await self._stop_forwarding()

    async def close(self, *, remove: bool) -> None:
        """Stop. Containers keep their networks, unless `remove`; without containers nothing of ours is left."""
        remove = remove or not self._sandboxes.items()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._pool.drain()
        if remove:
            for container_id, _ in self._sandboxes.items():
                await self._sandboxes.close(container_id)
        await self._reaper.finish()
        if remove:
            await self._firewall.remove()
            for network in self._catalogue:
                await _delete_bridge(network)
            await self._stop_forwarding()
        self._reconciler.close()
        self.balancer.close_sockets()
        self._sandboxes.close_sockets()

    async def _stop_forwarding(self) -> None:
        async with default_bridge.subnet_lock():
            if await switch_off_unless_used(self._firewall.guarded_bridges):
                await self._firewall.remove_guard()

    def let_go(self) -> None:
        """Close the last descriptors: after `close`, when nothing can end a sandbox any more."""
        self._firewall.let_go()

    async def settle(self) -> None:
        """Wait until all scheduled deletions are done and the pool is full."""
        await self._reaper.finish()
        await self._pool.wait_full()

    @property
    def prepared(self) -> Sequence[PreparedNamespace]:
        """Return the namespaces kept ready for the next starts."""
        return self._pool.ready

    @property
    def interface_prefix(self) -> str:
        """Return the prefix of the names of all our veth interfaces."""
        return self._namer.prefix

    @property
    def firewall_runs(self) -> int:
        """Count the nft processes that have written rules so far."""
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
        """Find a network by id, name or the beginning of an id. Raises: NotFound, InvalidParameter (ambiguous)."""
        return self._catalogue.find(ref)

    def get(self, network_id: str) -> Network | None:
        """Return a network by its full id, None if there is none."""
        return self._catalogue.get(network_id)

    def type_of(self, network_id: str) -> str:
        """Return the type that events show: the driver, but "overlay" for networks of a swarm."""
        network = self._catalogue.get(network_id)
        if network is None:
            return "bridge"
        return network.shown_driver

    def _has_names(self) -> bool:
        return any(network.has_names for network in self._catalogue)

    def all(self) -> Sequence[Network]:
        """List all networks, in order of creation."""
        return list(self._catalogue)

    @property
    def ingress(self) -> Network | None:
        """Return the swarm's ingress network, None if there is none."""
        return next((network for network in self._catalogue if network.ingress), None)

    def endpoints_of(self, network: Network) -> Mapping[str, Endpoint]:
        """List the endpoints on a network, by container id."""
        return {
            container_id: endpoint
            for container_id, sandbox in self._sandboxes.items()
            for endpoint in sandbox.endpoints
            if endpoint.network_id == network.id
        }

    def join_swarm(self, hooks: ClusterHooks) -> None:
        """Ask `hooks` about the networks of the swarm from here on. There are networks before there is a swarm."""
        self._cluster_hooks = hooks

    async def create(self, request: NetworkRequest, *, swarm_pools: Sequence[tuple[str, int]] | None = None) -> Network:
        """Create a user-defined network; it is durable and its bridge is up when this returns.

        `swarm_pools`: the address pools of a swarm that is being initialised. Raises: BennuError; then nothing is left.
        """
        async with self._changing, default_bridge.subnet_lock():
            ours = [network.bridge for network in self._catalogue if network.bridge]
            network = plan_network(
                request,
                Surroundings(
                    present=self.all(),
                    interfaces=await in_own_thread(netlink.list_links),
                    routes=await default_bridge.used_subnets(but_of=ours),
                    needed=await default_bridge.needed_addresses(),
                    global_id=self._global_id,
                    pools=self._settings.pools or DEFAULT_POOLS,
                    swarm_pools=self._cluster_hooks.pools() if swarm_pools is None else swarm_pools,
                    default_options=self._settings.default_options,
                ),
                network_id=new_network_id(in_swarm="swarm" in (request.scope, DRIVER_SCOPES.get(request.driver))),
                created_ns=time.time_ns(),
            )
            # On disk first: a bridge nobody remembers would stay for ever, a network without bridge gets it at open.
            await self._catalogue.add(network, is_wish=True)
            try:
                await self._set_up_bridge(network)
                await self._firewall.apply()
                await self._reconciler.enable_forwarding()
            except BaseException:
                await finish(asyncio.ensure_future(self._forget(network)))
                raise
        self._pool.refresh()
        await self._emit("create", network)
        return network

    async def remove(self, ref: str) -> Network:
        """Remove a network. Raises: NotFound; Forbidden when predefined or in use; BennuError."""
        await self._cluster_hooks.before_removal(self.find(ref))
        async with self._changing:
            network = self.find(ref)
            if network.is_predefined:
                raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
            if network.config_only and any(other.config_from == network.name for other in self._catalogue):
                raise Forbidden(f'configuration network "{network.name}" is in use')
            users = self.endpoints_of(network)
            if users:
                named = ", ".join(
                    f'name:"{endpoint.container_name}" id:"{container_id[:12]}"'
                    for container_id, endpoint in users.items()
                )
                raise Forbidden(f"error while removing network: network {network.name} has active endpoints ({named})")
            with self._catalogue.leaving(network):
                await finish(asyncio.ensure_future(self._forget(network)))
        self._pool.refresh()
        await self._emit("destroy", network)
        return network

    async def prune(self, unused: Callable[[Network], bool]) -> list[str]:
        """Remove the user-defined networks without endpoints for which `unused` is true; return their names."""
        removed = []
        for network in self.all():
            is_kept = network.is_predefined or network.ingress or network.config_only
            if is_kept or self.endpoints_of(network) or not unused(network):
                continue
            try:
                await self.remove(network.id)
            except BennuError as error:  # it was removed or taken into use meanwhile
                log.info("network %s was not pruned: %s", network.name, error)
                continue
            removed.append(network.name)
        if self._on_event is not None:
            await self._on_event("network", "prune", "", {"reclaimed": "0"}, "local")
        return removed

    async def _forget(self, network: Network) -> None:
        self._bridged.pop(network.id, None)
        await self._reaper.finish()
        await _delete_bridge(network)
        await self._firewall.apply()
        await self._catalogue.remove(network)

    async def _set_up_bridge(self, network: Network) -> None:
        if not network.bridge:
            return
        try:
            await default_bridge.set_up_bridge(network, self.balancer.vips_on(network))
        except (OSError, NetlinkError) as error:
            raise NetworkFailure(f"cannot set up bridge {network.bridge} of network {network.name}: {error}") from error
        self._bridged[network.id] = BridgeRules(
            name=network.bridge,
            subnets=tuple(pool.subnet for pool in network.ipam),
            masquerade=network.masquerade,
            icc=network.icc,
            internal=network.internal,
            mode4=network.gateway_mode(4),
            mode6=network.gateway_mode(6),
            host_ip4=network.host_ip(4),
            host_ip6=network.host_ip(6),
            trusted=network.trusted_interfaces,
        )

    async def _emit(self, action: str, network: Network, **more: str) -> None:
        if self._on_event is None:
            return
        attributes, scope = {**more, "name": network.name, "type": self.type_of(network.id)}, "local"
        if network.scope == "swarm" and action in SWARM_ACTIONS:
            # Created and removed networks are events of the swarm, connected containers of this node.
            action, scope = SWARM_ACTIONS[action], "swarm"
            del attributes["type"]
        await self._on_event("network", action, network.id, attributes, scope)

    # --- sandboxes ----------------------------------------------------------------------------------------------

    def sandbox(self, container_id: str) -> Sandbox | None:
        """Return the open sandbox of a container, None if it has none."""
        return self._sandboxes.get(container_id)

    async def open_sandbox(
        self,
        container_id: str,
        endpoints: Sequence[EndpointRequest],
        ports: Sequence[PortRequest],
        *,
        dns: Sequence[str] = (),
        links: Sequence[PortLink] = (),
    ) -> Sandbox:
        """Make a sandbox: a namespace attached to the networks, with the ports published; no endpoints: loopback only.

        `dns`: servers that the embedded DNS asks instead of the host's. `links`: ports of others that are opened to it.
        The caller stores the sandbox.
        Raises: BennuError; then, as after a cancellation, nothing is left.
        """
        endpoints = [request for request in endpoints if not self.is_switched_off(request.network)]
        for request in endpoints:
            self._check_attachable(container_id, self.find(request.network))
        return await self._sandboxes.open(container_id, endpoints, ports, dns, links)

    def is_switched_off(self, ref: str) -> bool:
        """Check that this is the default bridge, and there is to be none: who asks for it gets loopback only."""
        return ref in ("bridge", "default") and self._catalogue.named("bridge") is None

    def check(self, request: EndpointRequest) -> None:
        """Check that the network can ever grant the request. Raises: NotFound, InvalidParameter."""
        if not self.is_switched_off(request.network):
            check_request(self.find(request.network), request)

    async def close_sandbox(self, container_id: str) -> None:
        """Close a sandbox: its rules are gone when this returns, its namespace is deleted later. Idempotent."""
        await self._sandboxes.close(container_id)

    async def connect_sandbox(self, container_id: str, request: EndpointRequest) -> Endpoint:
        """Connect a running container to one more network; its sandbox changes in place, and the caller stores it.

        Raises: BennuError; then the sandbox is as before.
        """
        network = self.find(request.network)
        self._check_attachable(container_id, network)
        endpoint = await self._sandboxes.connect(container_id, network, request)
        await self._emit("connect", network, container=container_id)
        return endpoint

    def _check_attachable(self, container_id: str, network: Network) -> None:
        if (
            network.scope == "swarm"
            and not network.attachable
            and not self._cluster_hooks.may_attach(container_id, network)
        ):
            raise Forbidden(
                f"Could not attach to network {network.name}: rpc error: code = PermissionDenied desc = network "
                f"{network.name} not manually attachable"
            )

    async def disconnect_sandbox(self, container_id: str, ref: str) -> None:
        """Disconnect a running container from a network; its sandbox changes in place. Raises: BennuError."""
        network = self.find(ref)
        endpoint = self.endpoints_of(network).get(container_id)
        if endpoint is None:
            raise BennuError(f"container {container_id} is not connected to network {network.name}")
        await finish(asyncio.ensure_future(self._sandboxes.disconnect(container_id, endpoint)))
        await self._emit("disconnect", network, container=container_id)

    def rename_sandbox(self, container_id: str, name: str) -> None:
        """Rename the container in its endpoints and in the DNS."""
        self._sandboxes.rename(container_id, name)

    async def set_links(self, container_id: str, links: Sequence[PortLink]) -> None:
        """Replace the ports of others that legacy links open to a running container; the caller stores the sandbox.

        Raises: FirewallFailure.
        """
        await self._sandboxes.set_links(container_id, links)

    async def shut_ports(self, container_id: str) -> None:
        """Refuse new connections to a container's published ports; open ones go on, and the ports stay allocated.

        Not durable. Idempotent. Raises: BennuError.
        """
        await self._port_mapper.shut(container_id)

    async def reopen_ports(self, container_id: str) -> None:
        """Undo `shut_ports`. Idempotent. Raises: BennuError."""
        await self._port_mapper.reopen(container_id, self._sandboxes.get(container_id))

    # --- agreeing with the kernel -------------------------------------------------------------------------------

    def _ruleset(self) -> Ruleset:
        bridges = tuple(self._bridged[key] for key in sorted(self._bridged))
        return Ruleset(
            bridges,
            self._port_mapper.port_forwards(),
            self._forwarding.guard,
            self._port_mapper.open_ports(),
            self._sandboxes.opened_by_links(),
            families=tuple(version for version in FAMILIES if self._settings.has_rules(version)),
            direct_routing=self._settings.allow_direct_routing,
            accept_mark=self._settings.accept_fwmark,
        )

    async def reconcile(self) -> None:
        """Repair once what others changed in the kernel. Raises: BennuError, OSError, NetlinkError."""
        await self._reconciler.reconcile()


async def _delete_bridge(network: Network) -> None:
    if network.bridge and not network.foreign:
        await in_own_thread(lambda: netlink.remove_link(network.bridge))
