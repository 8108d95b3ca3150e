"""The nodes of the swarm: what clients do to them, how this host describes itself, and its sign of life."""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from bennu import __version__
from bennu.cluster.errors import check_version, precondition
from bennu.cluster.events import node_event
from bennu.cluster.state import Change, ClusterState
from bennu.cluster.tables import NodeRow
from bennu.errors import InvalidParameter, Unavailable
from bennu.orchestration.model.nouns import Node, NodeId, NodeResources
from bennu.orchestration.model.states import Availability, Role
from bennu.store import NO_LEASE, LeaseLost

DESCRIBE_EVERY_S: Final = 20
MISSED_HEARTBEATS: Final = 3
RETRY_S: Final = 1.0
log = logging.getLogger(__name__)
PLUGINS: Final = frozenset(
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
)


@dataclass(frozen=True, slots=True)
class HostNode:
    """The host as a node: what its administrator says of it, beside what can be seen."""

    labels: Mapping[str, str] = field(default_factory=dict)  # of the engine
    generic: Mapping[str, int | frozenset[str]] = field(default_factory=dict)  # kind → a count, or names of pieces
    advertised: str = ""  # the address of who begins a swarm without naming one

    def describe(self) -> Node:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return Node(
            id=NodeId(""),
            hostname=socket.gethostname(),
            architecture=os.uname().machine,
            engine_labels=self.labels,
            resources=NodeResources((os.cpu_count() or 1) * 10**9, memory, self.generic),
            plugins=PLUGINS,
        )


class Nodes:
    def __init__(self, state: ClusterState, host: HostNode) -> None:
        self.host = host
        self._state = state

    def find(self, ref: str) -> NodeRow:
        cluster = self._state.require_cluster()
        if ref == "self":
            ref = cluster.node_id
        return self._state.nodes.find(ref, lambda row: row.node.hostname, "node")

    async def update(self, ref: str, spec: dict[str, Any], version: int) -> None:
        async with self._state.lock:
            row = self.find(ref)
            check_version(row.index, version)
            if spec.get("Role", "manager") not in ("worker", "manager"):
                raise InvalidParameter(f'invalid Role: "{spec.get("Role")}"')
            if spec.get("Role") == "worker":
                raise precondition("attempting to demote the last manager of the swarm")
            node = replace(
                row.node,
                availability=read_availability(spec.get("Availability", "active")),
                labels=dict(spec.get("Labels") or {}),
            )
            changed = replace(row, node=node, name=spec.get("Name", ""))
            change = Change(events=[node_event("update", row, changed)])
            change.put(self._state.nodes, changed)
            await self._state.commit(change)

    def remove(self, ref: str) -> None:
        """Refuse to remove a node: the only node there is manages the swarm. Raises: InvalidParameter, NotFound."""
        row = self.find(ref)
        raise precondition(
            f"node {row.id} is a cluster manager and is a member of the raft cluster. It must be demoted to worker "
            "before removal"
        )

    async def keep_described(self) -> None:
        """Refresh the description of this host again and again, until cancelled."""
        while True:
            await asyncio.sleep(DESCRIBE_EVERY_S)
            try:
                await self.refresh_own()
            except Unavailable as error:
                log.warning("the description of this node could not be written: %s", error)

    async def refresh_own(self) -> None:
        """Store the description of this host anew, because the host may have changed."""
        node_id = self._state.require_cluster().node_id
        now = self.host.describe()
        row = self._state.nodes.get(node_id)
        if row is None:  # its record cannot be read; what a person said of it has to be said again
            manager = replace(now, id=NodeId(node_id), role=Role.MANAGER, address=read_address(""))
            row = NodeRow(id=node_id, node=manager)
        node = replace(
            row.node,
            hostname=now.hostname,
            resources=now.resources,
            architecture=now.architecture,
            engine_labels=now.engine_labels,
            plugins=now.plugins,
        )
        if node != row.node or row.engine_version != __version__:
            async with self._state.lock:
                change = Change()
                change.put(self._state.nodes, replace(row, node=node, engine_version=__version__))
                await self._state.commit(change)


def read_availability(word: str) -> Availability:
    try:
        return Availability(word or "active")
    except ValueError:
        raise InvalidParameter(f'invalid Availability: "{word}"') from None


def read_address(advertise: str) -> str:
    host = advertise.rpartition(":")[0] if ":" in advertise else advertise
    return host or _own_address()


def _own_address() -> str:
    """Find the address this host would use towards others; loopback when it has no route."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])
    return "127.0.0.1"


class Heartbeat:
    """The life of a node's lease: `begin` it, then `run` it.

    After three periods of silence the store lets the node go.
    """

    def __init__(self, state: ClusterState, node_id: str) -> None:
        self._state = state
        self._node_id = node_id
        self._lease = NO_LEASE
        self._period_ns = 0  # of the lease

    async def begin(self) -> None:
        """Take the node's lease, before any part of the manager judges the node."""
        try:
            self._period_ns = self._state.require_cluster().heartbeat_ns
            self._lease = await self._state.hold_alive(self._node_id, MISSED_HEARTBEATS * self._period_ns)
        except Unavailable as error:
            log.error("node %s cannot show that it is alive: %s", self._node_id, error)
            self._lease = NO_LEASE

    async def run(self) -> None:
        """Keep the node's lease alive until cancelled."""
        while True:
            await asyncio.sleep(self._period_ns / 1e9 if self._lease else RETRY_S)
            try:
                self._state.keep_alive(self._lease)
            except LeaseLost:
                log.warning("node %s was not heard for too long; it shows itself again", self._node_id)
                await self.begin()
            if self._period_ns != self._state.require_cluster().heartbeat_ns:
                await self.begin()
