"""The swarm of this node: its life from init to leave, and the parts that live in it.

Each verb reads and writes under the state's lock and returns when the change is on disk; what follows from it is the
manager's and the agent's work.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from typing import Any

import msgspec

from bennu import __version__
from bennu.cluster.agent import Agent
from bennu.cluster.allocator import Allocator
from bennu.cluster.errors import ALREADY_PART, LEAVE_LAST, NOT_PART, check_version
from bennu.cluster.events import node_event
from bennu.cluster.ids import base36, new_id
from bennu.cluster.load_balancer import LoadBalancer
from bennu.cluster.manager import Manager
from bennu.cluster.nodes import Heartbeat, HostNode, Nodes, read_address, read_availability
from bennu.cluster.rollout_metrics import RolloutMetrics
from bennu.cluster.secret_box import SecretBox
from bennu.cluster.secret_store import SecretStore
from bennu.cluster.services import Services
from bennu.cluster.state import Change, ClusterState, open_state
from bennu.cluster.swarm_spec import complete_swarm_spec, read_data_port, read_pools
from bennu.cluster.tables import ClusterRow, NodeRow
from bennu.cluster.task_containers import remove_all_tasks
from bennu.cluster.task_files import TaskFiles
from bennu.engine.background import Background
from bennu.engine.engine import Engine
from bennu.errors import BennuError, InvalidParameter, NotImplementedHere, Unavailable
from bennu.network import NetworkRequest
from bennu.orchestration.model.nouns import NodeId
from bennu.orchestration.model.states import Role

log = logging.getLogger(__name__)


class Cluster:
    """The swarm of this node, made by `open_cluster`. Outside a swarm every verb but `init` raises Unavailable."""

    def __init__(self, engine: Engine, state: ClusterState, host: HostNode) -> None:
        services = engine.services
        self.engine = engine
        self.state = state
        self._box = SecretBox(services.data_root / "swarm.key")
        self.balancer = LoadBalancer(services.networks, self.state)
        self.networks = networks = Allocator(engine, self.state, self.balancer)
        self.nodes = Nodes(self.state, host)
        self.services = Services(self.state, networks, self._now_ns)
        self.secrets = SecretStore("secret", self.state, self._box)
        self.configs = SecretStore("config", self.state, self._box)
        self._files = TaskFiles(self.state, self._box, services.exec_root / "files")
        self._runners: Background | None = None
        self._turn = asyncio.Lock()  # one init or leave at a time
        self.manager: Manager | None = None
        self.agent: Agent | None = None
        services.pre_stop.register(self.balancer.hold)
        services.networks.join_swarm(networks)

    async def open(self) -> None:
        if self.state.cluster is not None:
            await self.nodes.refresh_own()
            await self._prepare()
        elif self._is_aside:
            log.error("the swarm this node is in cannot be read; its tasks are left alone")
        elif any(network.scope == "swarm" for network in self.engine.services.networks.all()):
            await self._clear_leftovers()  # the last daemon died while it entered a swarm, or left one

    def begin(self) -> None:
        """Start to act upon the stored state; called once the daemon is ready to answer."""
        if self.state.cluster is not None:
            self._run()

    @property
    def _is_aside(self) -> bool:
        """Whether this node is, or was, in a swarm whose own record is set aside."""
        return self.state.cluster is None and any(key.startswith(self.state.swarm.key("")) for key in self.state.aside)

    async def close(self) -> None:
        """Stop managing; containers live on."""
        if self._runners is not None:
            await self._runners.__aexit__(None, None, None)
            self._runners = None
        if self.manager is not None:
            self.manager.close()
            self.manager = self.agent = None

    async def _prepare(self) -> None:
        """Make all parts of the cluster without starting their work."""
        cluster = self.state.require_cluster()
        self._metrics = RolloutMetrics(self.engine, self.state)
        self.manager = Manager(self.state, self._metrics.build_evidence)
        self.agent = Agent(self.engine, self.state, self.manager.report, self.balancer, self._files, cluster.node_id)
        self._heartbeat = Heartbeat(self.state, cluster.node_id)
        await self._heartbeat.begin()

    def _run(self) -> None:
        assert self.manager is not None and self.agent is not None
        self._runners = Background()
        self._runners.create_task(self._heartbeat.run(), name="heartbeat")
        self._runners.create_task(self.nodes.keep_described(), name="description of this node")
        self._runners.create_task(self.manager.run(), name="manager")
        self._runners.create_task(self._metrics.run(self.manager), name="rollout metrics")
        self._runners.create_task(self.agent.run(), name="agent")
        self._runners.create_task(self.networks.keep_allotted(), name="give services their addresses")

    @property
    def is_active(self) -> bool:
        return self.state.cluster is not None

    async def init(
        self,
        *,
        listen_addr: str,
        advertise_addr: str,
        availability: str,
        spec: dict[str, Any],
        address_pools: Iterable[str] = (),
        subnet_size: int = 0,
        data_path_port: int = 0,
    ) -> str:
        """Begin a swarm of this one node and answer the node's id. Raises: Unavailable when there is one."""
        async with self._turn:
            if self.state.cluster is not None:
                raise Unavailable(ALREADY_PART)
            if self._is_aside:
                raise Unavailable(f"{ALREADY_PART} Its record cannot be read: {'; '.join(self.state.aside)}")
            if not listen_addr:
                raise InvalidParameter('invalid ListenAddr "": invalid empty address')
            advertise_addr = advertise_addr or self.nodes.host.advertised
            pools, size = read_pools(address_pools, subnet_size)
            node = self._describe_manager(advertise_addr, availability)
            full = complete_swarm_spec(spec)
            cluster = ClusterRow(
                id=new_id(),
                spec=msgspec.json.encode(full).decode(),
                node_id=node.id,
                ca_digest=base36(secrets.randbelow(36**50), 50),
                worker_secret=new_id(),
                manager_secret=new_id(),
                listen_addr=listen_addr,
                advertise_addr=advertise_addr or f"{node.node.address}:2377",
                address_pools=pools,
                subnet_size=size,
                data_path_port=read_data_port(data_path_port),
                history_limit=full["Orchestration"]["TaskHistoryRetentionLimit"],
                heartbeat_ns=full["Dispatcher"]["HeartbeatPeriod"],
            )
            await self._found(cluster, node)
            await self._prepare()
            self._run()
            return node.id

    def _describe_manager(self, advertise_addr: str, availability: str) -> NodeRow:
        node_id = new_id()
        node = replace(
            self.nodes.host.describe(),
            id=NodeId(node_id),
            role=Role.MANAGER,
            address=read_address(advertise_addr),
            availability=read_availability(availability),
        )
        return NodeRow(id=node_id, node=node, engine_version=__version__)

    async def _found(self, cluster: ClusterRow, node: NodeRow) -> None:
        """Store the swarm, its node and its ingress network, or nothing of them."""
        change = Change(events=[node_event("create", None, node)])
        change.put(self.state.swarm, cluster)
        change.put(self.state.nodes, node)
        pools = [(pool, cluster.subnet_size) for pool in cluster.address_pools]
        request = NetworkRequest(name="ingress", driver="overlay", ingress=True)
        # The network first: without a swarm it is cleared, here or by the next daemon.
        ingress = await self.engine.services.networks.create(request, swarm_pools=pools)
        try:
            async with self.state.lock:
                await self.state.commit(change)
        except BaseException:
            await asyncio.shield(self.engine.services.networks.remove(ingress.id))
            raise

    async def leave(self, *, force: bool) -> None:
        """End the swarm: tasks, their containers and all of the swarm's state go. Raises: Unavailable."""
        async with self._turn:
            if self.state.cluster is None and not self._is_aside:
                raise Unavailable(NOT_PART)
            if not force:
                raise Unavailable(LEAVE_LAST)
            await self.close()
            async with self.state.lock:
                change = Change()
                for table, row_id in self.state.everything():
                    change.delete(table, row_id)
                await self.state.commit(change)
                await self.state.forget_aside()
            # The state first: what is left after a death here is cleared when the next daemon opens.
            await self._clear_leftovers()

    async def _clear_leftovers(self) -> None:
        await self.balancer.clear()
        await remove_all_tasks(self.engine, self._files)
        await self._files.close()
        self._box.destroy()
        for network in self.engine.services.networks.all():
            if network.scope == "swarm":
                with contextlib.suppress(BennuError):
                    await self.engine.services.networks.remove(network.id)

    async def update(
        self, spec: dict[str, Any], version: int, *, worker: bool, manager: bool, unlock_key: bool
    ) -> None:
        async with self.state.lock:
            cluster = self.state.require_cluster()
            check_version(cluster.index, version)
            if spec.get("Name", "default") not in ("", "default"):
                raise InvalidParameter('swarm spec must be named "default"')
            full = complete_swarm_spec(spec)
            changed = replace(
                cluster,
                spec=msgspec.json.encode(full).decode(),
                history_limit=full["Orchestration"]["TaskHistoryRetentionLimit"],
                heartbeat_ns=full["Dispatcher"]["HeartbeatPeriod"],
                worker_secret=new_id() if worker else cluster.worker_secret,
                manager_secret=new_id() if manager else cluster.manager_secret,
            )
            if unlock_key:
                raise NotImplementedHere("locking managers (autolock) is not implemented")
            change = Change()
            change.put(self.state.swarm, changed)
            await self.state.commit(change)

    def _now_ns(self) -> int:
        assert self.manager is not None
        return self.manager.now_ns


@contextlib.asynccontextmanager
async def open_cluster(engine: Engine, host: HostNode) -> AsyncIterator[Cluster]:
    """Take up the swarm this node is in, if it is in one.

    The cluster acts once `begin` is called. When the block ends, tasks live on.
    """
    async with open_state(engine.services.store, engine.services.journal) as state:
        cluster = Cluster(engine, state, host)
        await cluster.open()
        try:
            yield cluster
        finally:
            await cluster.close()
