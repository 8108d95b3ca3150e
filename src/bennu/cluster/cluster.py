"""The swarm of this node: its beginning, its end, and what clients do to services, nodes, secrets and configs.

Each verb reads and writes under the state's lock and returns when the change is on disk; what follows from it is the
manager's and the agent's work.
"""

import asyncio
import base64
import contextlib
import logging
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from typing import Any, Final

import msgspec

from bennu import __version__
from bennu.cluster.agent import Agent, task_of
from bennu.cluster.blobs import TaskFiles
from bennu.cluster.check import check_spec
from bennu.cluster.errors import (
    ALREADY_PART,
    LEAVE_LAST,
    NOT_PART,
    exists,
    invalid,
    not_manager,
    precondition,
    unimplemented,
    unknown,
)
from bennu.cluster.ids import base36, new_id
from bennu.cluster.manager import Manager
from bennu.cluster.ports import allocate_ports
from bennu.cluster.records import BlobRow, ClusterRow, NodeRow, ServiceRow
from bennu.cluster.state import Change, State, Table
from bennu.cluster.telling import blob_event, node_event, service_event
from bennu.cluster.traffic import Traffic
from bennu.cluster.translate import container_spec, read_template, to_core
from bennu.cluster.vault import Vault
from bennu.cluster.wire import ServiceSpecWire
from bennu.cluster.witness import Witness
from bennu.engine.background import Background
from bennu.engine.engine import Engine
from bennu.engine.names import random_name
from bennu.errors import BennuError, Forbidden, InvalidParameter, NotFound, NotImplementedHere, Unavailable
from bennu.network import Network
from bennu.orchestration.model import Node, NodeId, NodeResources, ServiceId
from bennu.orchestration.revisions import accept_rollback, accept_update, create_service
from bennu.orchestration.states import Availability, NodeState, Role

log = logging.getLogger(__name__)
SPEC_DEFAULTS: Final[dict[str, Any]] = {
    "Name": "default",
    "Labels": {},
    "Orchestration": {"TaskHistoryRetentionLimit": 5},
    "Raft": {
        "SnapshotInterval": 10000,
        "KeepOldSnapshots": 0,
        "LogEntriesForSlowFollowers": 500,
        "ElectionTick": 10,
        "HeartbeatTick": 1,
    },
    "Dispatcher": {"HeartbeatPeriod": 5_000_000_000},
    "CAConfig": {"NodeCertExpiry": 7_776_000_000_000_000},
    "TaskDefaults": {},
    "EncryptionConfig": {"AutoLockManagers": False},
}
TASKS_LEAVE_S: Final = 60
HOUR_NS: Final = 3600 * 10**9
MAX_SECRET: Final = 512_000
MAX_CONFIG: Final = 1_024_000


class Cluster:
    """Made by `open_cluster`. Outside a swarm every verb but `init` raises Unavailable."""

    def __init__(self, engine: Engine) -> None:
        services = engine.services
        self.engine = engine
        self.state = State(services.store, services.journal)
        self.vault = Vault(services.data_root / "swarm.key")
        self._traffic = Traffic(services.networks, self.state)
        self._files = TaskFiles(self.state, self.vault, services.exec_root / "files")
        self._runners: Background | None = None
        self._turn = asyncio.Lock()  # one init or leave at a time
        self.manager: Manager | None = None
        services.networks.in_swarm = lambda: self.is_active
        services.networks.before_removal = self._before_network_removal

    async def open(self) -> None:
        await self.state.open()
        if self.state.cluster is not None:
            await self._refresh_node()
            await self._begin()

    async def close(self) -> None:
        """Stop managing; containers live on."""
        if self._runners is not None:
            await self._runners.__aexit__(None, None, None)
            self._runners = None
        if self.manager is not None:
            self.manager.close()
            self.manager = None

    async def _begin(self) -> None:
        cluster = self.cluster
        self.manager = Manager(self.state)
        agent = Agent(self.engine, self.state, self.manager, self._traffic, self._files, cluster.node_id)
        self.manager.hear(cluster.node_id)
        self._runners = Background()
        witness = Witness(self.engine, self.state, self.manager)
        self._runners.create_task(self.manager.run(), name="manager")
        self._runners.create_task(witness.run(), name="witness")
        self._runners.create_task(agent.run(), name="agent")

    @property
    def cluster(self) -> ClusterRow:
        """Raises: Unavailable outside a swarm."""
        cluster = self.state.cluster
        if cluster is None:
            raise not_manager()
        return cluster

    @property
    def traffic(self) -> Traffic:
        return self._traffic

    @property
    def is_active(self) -> bool:
        return self.state.cluster is not None

    # --- the swarm ----------------------------------------------------------------------------------------------

    async def init(
        self,
        *,
        listen_addr: str,
        advertise_addr: str,
        availability: str,
        spec: dict[str, Any],
        address_pools: Iterable[str] = (),
        subnet_size: int = 24,
        data_path_port: int = 4789,
    ) -> str:
        """Begin a swarm of this one node; answers the node's id. Raises: Unavailable when there is one."""
        async with self._turn:
            if self.state.cluster is not None:
                raise Unavailable(ALREADY_PART)
            if not listen_addr:
                raise InvalidParameter('invalid ListenAddr "": invalid empty address')
            full = complete_swarm_spec(spec)
            node = NodeRow(
                id=new_id(),
                node=replace(
                    describe_node(), address=_address(advertise_addr), availability=_availability(availability)
                ),
                engine_version=__version__,
            )
            node = replace(node, node=replace(node.node, id=NodeId(node.id), role=Role.MANAGER))
            cluster = ClusterRow(
                id=new_id(),
                spec=msgspec.json.encode(full).decode(),
                node_id=node.id,
                ca_digest=base36(secrets.randbelow(36**50), 50),
                worker_secret=new_id(),
                manager_secret=new_id(),
                listen_addr=listen_addr,
                advertise_addr=advertise_addr or f"{node.node.address}:2377",
                address_pools=tuple(address_pools) or ("10.0.0.0/8",),
                subnet_size=subnet_size or 24,
                data_path_port=data_path_port or 4789,
                history_limit=full["Orchestration"]["TaskHistoryRetentionLimit"],
            )
            async with self.state.lock:
                change = Change()
                change.put(self.state.swarm, cluster)
                change.put(self.state.nodes, node)
                change.events.append(node_event("create", None, node))
                await self.state.commit(change)
            await self._begin()
            return node.id

    async def leave(self, *, force: bool) -> None:
        """End it: tasks, their containers and all of the swarm's state go. Raises: Unavailable."""
        async with self._turn:
            cluster = self.state.cluster
            if cluster is None:
                raise Unavailable(NOT_PART)
            if not force:
                raise Unavailable(LEAVE_LAST)
            await self.close()
            async with self.state.lock:
                change = Change()
                for table, row_id in self.state.everything():
                    change.delete(table, row_id)
                await self.state.commit(change)
            # The state first: what is left of containers after a crash here is cleared by `clear_leftovers`.
            await self._clear_leftovers(cluster.node_id)

    async def _clear_leftovers(self, node_id: str) -> None:
        agent = Agent(self.engine, self.state, Manager(self.state), self._traffic, self._files, node_id)
        await agent.remove_all()
        await self._files.close()
        self.vault.destroy()
        for network in self.engine.services.networks.all():
            if network.scope == "swarm":
                with contextlib.suppress(BennuError):
                    await self.engine.services.networks.remove(network.id)

    async def update_swarm(
        self, spec: dict[str, Any], version: int, *, worker: bool, manager: bool, unlock_key: bool
    ) -> None:
        async with self.state.lock:
            cluster = self.cluster
            check_version(cluster.index, version)
            if spec.get("Name", "default") not in ("", "default"):
                raise InvalidParameter('swarm spec must be named "default"')
            full = complete_swarm_spec(spec)
            changed = replace(
                cluster,
                spec=msgspec.json.encode(full).decode(),
                history_limit=full["Orchestration"]["TaskHistoryRetentionLimit"],
                worker_secret=new_id() if worker else cluster.worker_secret,
                manager_secret=new_id() if manager else cluster.manager_secret,
            )
            if unlock_key:
                raise NotImplementedHere("locking managers (autolock) is not implemented")
            change = Change()
            change.put(self.state.swarm, changed)
            await self.state.commit(change)

    async def _refresh_node(self) -> None:
        """The host may have changed while no daemon ran."""
        row = self.state.nodes.get(self.cluster.node_id)
        if row is None:
            return
        now = describe_node()
        node = replace(row.node, hostname=now.hostname, resources=now.resources, architecture=now.architecture)
        if node != row.node or row.engine_version != __version__:
            async with self.state.lock:
                change = Change()
                change.put(self.state.nodes, replace(row, node=node, engine_version=__version__))
                await self.state.commit(change)

    # --- services -----------------------------------------------------------------------------------------------

    def find_service(self, ref: str) -> ServiceRow:
        self.cluster  # noqa: B018 - raises outside a swarm
        return self.state.services.find(ref, lambda row: row.name, "service")

    async def create_service(self, wire: ServiceSpecWire, registry_auth: str) -> str:
        """Answers its id. Raises: BennuError in the words clients know."""
        self.cluster  # noqa: B018
        wire.name = wire.name or random_name()
        check_spec(wire)
        self._resolve_networks(wire)
        async with self.state.lock:
            self._check_references(wire)
            if any(row.name == wire.name for row in self.state.services):
                raise exists(f"name conflicts with an existing object: service {wire.name} already exists")
            spec = to_core(wire, registry_auth=registry_auth)
            ports = allocate_ports(spec.endpoint, self.state.services)
            service_id = new_id()
            service = create_service(ServiceId(service_id), spec, now_ns=self._now_ns())
            row = ServiceRow(id=service_id, service=service, ports=ports)
            change = Change(events=[service_event("create", None, row)])
            change.put(self.state.services, row)
            await self.state.commit(change)
        return service_id

    async def update_service(
        self, ref: str, wire: ServiceSpecWire, version: int, *, registry_auth: str | None, auth_from: str, rollback: str
    ) -> None:
        """An ordinary update, or with `rollback` `previous` the way back. Raises: BennuError."""
        self.cluster  # noqa: B018
        if rollback not in ("", "none", "previous"):
            raise BennuError(f"unrecognized rollback option {rollback}")
        if auth_from not in ("", "spec", "previous-spec"):
            raise InvalidParameter(f"invalid registryAuthFrom '{auth_from}'")
        row = self.find_service(ref)
        wire.name = wire.name or row.name
        check_spec(wire)
        self._resolve_networks(wire)
        async with self.state.lock:
            row = self.find_service(row.id)
            check_version(row.index, version)
            now_ns = self._now_ns()
            if rollback == "previous":
                if row.service.previous is None:
                    raise precondition(f"service {row.id} does not have a previous spec")
                service = accept_rollback(row.service, now_ns=now_ns)
            else:
                self._check_references(wire)
                if registry_auth is None:
                    previous = row.service.previous
                    source = previous.spec if auth_from == "previous-spec" and previous else row.service.spec
                    registry_auth = source.task.registry_auth
                spec = to_core(wire, registry_auth=registry_auth)
                try:
                    service = accept_update(row.service, spec, version=version, now_ns=now_ns)
                except NotImplementedHere as error:
                    raise unimplemented(str(error)) from None
            others = [other for other in self.state.services if other.id != row.id]
            ports = allocate_ports(service.spec.endpoint, others, row.ports)
            changed = replace(row, service=service, ports=ports)
            change = Change(events=[service_event("update", row, changed)])
            change.put(self.state.services, changed)
            await self.state.commit(change)

    async def remove_service(self, ref: str) -> None:
        async with self.state.lock:
            row = self.find_service(ref)
            change = Change(events=[service_event("remove", None, row)])
            change.delete(self.state.services, row.id)
            await self.state.commit(change)

    def _resolve_networks(self, wire: ServiceSpecWire) -> None:
        """Targets become ids. Raises: BennuError (500) for what is not there, Forbidden for a network of one host."""
        for attachment in wire.task_template.networks or wire.networks or ():
            try:
                network = self.engine.services.networks.find(attachment.target)
            except NotFound:
                raise BennuError(f"network {attachment.target} not found") from None
            if network.scope != "swarm" and not network.is_predefined:
                raise Forbidden(
                    f"The network {network.name} cannot be used with services. Only networks scoped to the swarm can "
                    "be used, such as those created with the overlay driver."
                )
            attachment.target = network.id

    def _check_references(self, wire: ServiceSpecWire) -> None:
        spec = wire.task_template.container_spec
        assert spec is not None
        for word, table, asked in (
            ("secret", self.state.secrets, [(ref.secret_id, ref.secret_name) for ref in spec.secrets or ()]),
            ("config", self.state.configs, [(ref.config_id, ref.config_name) for ref in spec.configs or ()]),
        ):
            missing = []
            for row_id, name in asked:
                row = table.get(row_id)
                if row is None or row.name != name:
                    missing.append(name)
            if missing:
                raise invalid(f"{word}{'s' if len(missing) > 1 else ''} not found: {', '.join(missing)}")

    def users_of_network(self, network_id: str) -> list[ServiceRow]:
        return [
            row
            for row in self.state.services
            if any(item.target == network_id for item in read_template(row.service.spec.task.container).networks or ())
        ]

    async def _before_network_removal(self, network: Network) -> None:
        """A network is free when no service has it, although tasks of removed ones may still be stopping on it."""
        if network.scope != "swarm" or not self.is_active:
            return
        users = self.users_of_network(network.id)
        if users:
            raise precondition(f"network {network.id} is in use by service {users[0].id}")
        networks = self.engine.services.networks
        give_up_at = time.monotonic() + TASKS_LEAVE_S
        for container_id in networks.endpoints_of(network):
            while self._is_leaving(container_id, network) and time.monotonic() < give_up_at:  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    def _is_leaving(self, container_id: str, network: Network) -> bool:
        if container_id not in self.engine.services.networks.endpoints_of(network):
            return False
        try:
            task_id = task_of(self.engine.find(container_id))
        except NotFound:
            return True
        row = self.state.tasks.get(task_id) if task_id else None
        return bool(task_id) and (row is None or row.task.service_id not in self.state.services.rows)

    # --- nodes --------------------------------------------------------------------------------------------------

    def find_node(self, ref: str) -> NodeRow:
        cluster = self.cluster
        if ref == "self":
            ref = cluster.node_id
        return self.state.nodes.find(ref, lambda row: row.node.hostname, "node")

    async def update_node(self, ref: str, spec: dict[str, Any], version: int) -> None:
        async with self.state.lock:
            row = self.find_node(ref)
            check_version(row.index, version)
            if spec.get("Role", "manager") not in ("worker", "manager"):
                raise InvalidParameter(f'invalid Role: "{spec.get("Role")}"')
            if spec.get("Role") == "worker":
                raise precondition("attempting to demote the last manager of the swarm")
            node = replace(
                row.node,
                availability=_availability(spec.get("Availability", "active")),
                labels=dict(spec.get("Labels") or {}),
            )
            changed = replace(row, node=node, name=spec.get("Name", ""))
            change = Change(events=[node_event("update", row, changed)])
            change.put(self.state.nodes, changed)
            await self.state.commit(change)

    async def remove_node(self, ref: str, *, force: bool) -> None:
        row = self.find_node(ref)
        if row.node.state is not NodeState.DOWN and not force:
            raise precondition(f"node {row.id} is not down and can't be removed")
        raise precondition(
            f"node {row.id} is a cluster manager and is a member of the raft cluster. It must be demoted to worker "
            "before removal"
        )

    # --- secrets and configs ------------------------------------------------------------------------------------

    def blobs(self, kind: str) -> Table[BlobRow]:
        self.cluster  # noqa: B018
        return self.state.secrets if kind == "secret" else self.state.configs

    def find_blob(self, kind: str, ref: str) -> BlobRow:
        return self.blobs(kind).find(ref, lambda row: row.name, kind)

    async def create_blob(self, kind: str, name: str, labels: dict[str, str], data: bytes, templating: str) -> str:
        table = self.blobs(kind)
        limit = MAX_SECRET if kind == "secret" else MAX_CONFIG
        if not 0 < len(data) < limit:
            raise invalid(f"{kind} data must be larger than 0 and less than {limit} bytes")
        async with self.state.lock:
            if any(row.name == name for row in table):
                raise exists(f"{kind} {name} already exists")
            kept = self.vault.seal(data) if kind == "secret" else base64.b64encode(data).decode()
            row = BlobRow(id=new_id(), name=name, labels=labels, data=kept, templating=templating)
            change = Change(events=[blob_event(kind, "create", row)])
            change.put(table, row)
            await self.state.commit(change)
        return row.id

    async def update_blob(self, kind: str, ref: str, labels: dict[str, str], version: int) -> None:
        async with self.state.lock:
            row = self.find_blob(kind, ref)
            check_version(row.index, version)
            changed = replace(row, labels=labels)
            change = Change(events=[blob_event(kind, "update", changed)])
            change.put(self.blobs(kind), changed)
            await self.state.commit(change)

    async def remove_blob(self, kind: str, ref: str) -> None:
        async with self.state.lock:
            row = self.find_blob(kind, ref)
            users = sorted(service.name for service in self.state.services if _uses(service, kind, row.id))
            if users:
                word = "service" if len(users) == 1 else "services"
                raise invalid(f"{kind} '{row.name}' is in use by the following {word}: {', '.join(users)}")
            change = Change(events=[blob_event(kind, "remove", row)])
            change.delete(self.blobs(kind), row.id)
            await self.state.commit(change)

    def _now_ns(self) -> int:
        assert self.manager is not None
        return self.manager.now_ns


def _uses(row: ServiceRow, kind: str, blob_id: str) -> bool:
    spec = container_spec(row.service.spec.task)
    if kind == "secret":
        return any(ref.secret_id == blob_id for ref in spec.secrets or ())
    return any(ref.config_id == blob_id for ref in spec.configs or ())


def check_version(index: int, version: int) -> None:
    """Raises: BennuError when the client's picture is not the newest."""
    if index != version:
        raise unknown("update out of sequence")


def complete_swarm_spec(spec: dict[str, Any]) -> dict[str, Any]:
    """With the defaults for what is absent. Raises: InvalidParameter, NotImplementedHere."""
    full: dict[str, Any] = {}
    for key, default in SPEC_DEFAULTS.items():
        given = spec.get(key)
        if isinstance(default, dict) and key != "Labels":
            full[key] = default | {name: part for name, part in (given or {}).items() if part is not None}
        else:
            full[key] = given or default
    full["Name"] = "default"
    if full["EncryptionConfig"].get("AutoLockManagers"):
        raise NotImplementedHere("locking managers (autolock) is not implemented")
    expiry = full["CAConfig"].get("NodeCertExpiry") or SPEC_DEFAULTS["CAConfig"]["NodeCertExpiry"]
    full["CAConfig"]["NodeCertExpiry"] = expiry
    full["Dispatcher"]["HeartbeatPeriod"] = full["Dispatcher"].get("HeartbeatPeriod") or 5_000_000_000
    if expiry < HOUR_NS:
        raise InvalidParameter("minimum certificate expiry time is: 1h0m0s")
    return full


def describe_node() -> Node:
    """This host, as its agent describes it."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    resources = NodeResources(nano_cpus=(os.cpu_count() or 1) * 10**9, memory_bytes=memory)
    return Node(
        id=NodeId(""),
        hostname=socket.gethostname(),
        architecture=os.uname().machine,
        resources=resources,
        plugins=frozenset(
            {
                ("Volume", "local"),
                ("Network", "bridge"),
                ("Network", "host"),
                ("Network", "null"),
                ("Network", "overlay"),
                ("Log", "json-file"),
                ("Log", "local"),
                ("Log", "none"),
            }
        ),
    )


def _availability(word: str) -> Availability:
    try:
        return Availability(word or "active")
    except ValueError:
        raise InvalidParameter(f'invalid Availability: "{word}"') from None


def _address(advertise: str) -> str:
    host = advertise.rpartition(":")[0] if ":" in advertise else advertise
    return host or _own_address()


def _own_address() -> str:
    """The address this host would use towards others; loopback when it has no route."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])
    return "127.0.0.1"


@contextlib.asynccontextmanager
async def open_cluster(engine: Engine) -> AsyncIterator[Cluster]:
    """Take up the swarm this node is in, if it is in one; on leaving, tasks live on."""
    cluster = Cluster(engine)
    await cluster.open()
    try:
        yield cluster
    finally:
        await cluster.close()
