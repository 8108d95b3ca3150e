"""One task as the load balancer sees it: addresses and ports, and its signs (health, listening sockets, connections).

It decides nothing (`orchestration/tasks/traffic.py` does) and changes nothing (`load_balancer.py` does).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from bennu.cluster.connections import Sockets, count_connecting, is_listening, look_at_sockets
from bennu.cluster.ports import is_ingress
from bennu.cluster.state import ClusterState
from bennu.cluster.tables import ServiceRow, TaskRow
from bennu.engine.container import Container
from bennu.go.duration import parse_duration
from bennu.network import Endpoint, Networks
from bennu.network.frontends import BackendAddress, BackendPort
from bennu.network.frontends import ServiceBackend as Target
from bennu.orchestration.model.spec import PortSpec
from bennu.orchestration.model.states import PublishMode, TaskState
from bennu.orchestration.rollout.blue_green import may_serve
from bennu.orchestration.rollout.watched_run import is_on_trial
from bennu.orchestration.tasks.traffic import DEFAULT_DRAIN_DEADLINE_NS, Backend, Signs, decide_ready

LOOK_FOR_LISTENER_S: Final = 0.03
LATE_LISTENER_S: Final = 1.0
ASK_READINESS_S: Final = 0.25
DRAIN_LABEL: Final = "bennu.drain.deadline"
READY_LABEL: Final = "bennu.ready.within"
READY_WITHIN_NS: Final = 10 * 10**9


class TaskBackend:
    """A started task as the load balancer sees it. Only the balancer writes its fields."""

    def __init__(
        self, networks: Networks, state: ClusterState, row: TaskRow, container: Container, on_change: Callable[[], None]
    ) -> None:
        self.container = container
        self.on_change = on_change  # told when its stop has failed: it is to be looked at anew
        self.stops = 0  # under way: who is to be stopped takes nothing new
        self.are_ports_shut = False  # those in host mode
        self.left_at_ns: int | None = None  # when it was last taken out of the balancer
        self.known_as: Target | None = None  # as the balancer had it last
        self._networks = networks
        self._state = state
        self._last_row = row
        self._accepts = False
        self.host_ports = [port for port in self._asked() if port.mode is PublishMode.HOST]
        self._ingress_ports = self._own_ingress_ports()
        # By a port of the ingress, or by its service's name and address.
        self.is_balanced = bool(self._ingress_ports) or self._is_on_swarm_network()

    @property
    def task_id(self) -> str:
        return self._last_row.id

    @property
    def service_id(self) -> str:
        return self._last_row.task.service_id

    @property
    def row(self) -> TaskRow:
        """The task's row as it is stored, or was when its service was removed."""
        self._last_row = self._state.tasks.get(self._last_row.id) or self._last_row
        return self._last_row

    @property
    def service(self) -> ServiceRow | None:
        return self._state.services.get(self.service_id)

    @property
    def is_stopping(self) -> bool:
        return self.stops > 0

    @property
    def has_run(self) -> bool:
        return self.row.task.running_since_ns is not None

    def may_take_turn(self) -> bool:
        """Tell whether the task is to have new connections, if it is ready for them."""
        is_to_end = self.task_id not in self._state.tasks.rows or self.row.task.desired > TaskState.COMPLETE
        return not is_to_end and not self.is_stopping and self._is_its_turn()

    def _is_its_turn(self) -> bool:
        service = self.service
        return service is None or may_serve(service.service, self.row.task)

    # --- where it is --------------------------------------------------------------------------------------------

    def _asked(self) -> Sequence[PortSpec]:
        endpoint = self._last_row.task.endpoint
        return endpoint.ports if endpoint else ()

    def _own_ingress_ports(self) -> list[PortSpec]:
        """List the task's ports in ingress mode, with the numbers really published."""
        asked = [port for port in self._asked() if is_ingress(port)]
        service = self.service
        used = {(port.target, port.protocol): port for port in (service.ports if service else ()) if is_ingress(port)}
        chosen = [port if port.published else used.get((port.target, port.protocol), port) for port in asked]
        return [port for port in chosen if port.published]

    def _endpoints(self) -> list[Endpoint]:
        sandbox = self.container.record.sandbox
        return [one for one in sandbox.endpoints if one.interface] if sandbox else []  # on `host` it has no address

    def _is_on_swarm_network(self) -> bool:
        found = (self._networks.get(endpoint.network_id) for endpoint in self._endpoints())
        return any(network is not None and network.scope == "swarm" for network in found)

    def target(self) -> Target | None:
        """Build the target of the task's connections; None while it has no address."""
        sandbox = self.container.record.sandbox
        endpoints = self._endpoints()
        way_in = next((one for one in endpoints if self._is_ingress(one)), None)
        way_in = way_in or (sandbox.gateway_endpoint() if sandbox else None) or next(iter(endpoints), None)
        if way_in is None:
            return None
        self.known_as = Target(
            owner=self.task_id,
            ip=way_in.ip_address,
            addresses=tuple(
                BackendAddress(network_id=one.network_id, ip=one.ip_address, ip6=one.ipv6_address) for one in endpoints
            ),
            ports=tuple(
                BackendPort(proto=port.protocol, published=port.published, target=port.target)
                for port in self._ingress_ports
            ),
        )
        return self.known_as

    def _is_ingress(self, endpoint: Endpoint) -> bool:
        network = self._networks.get(endpoint.network_id)
        return network is not None and network.ingress

    # --- its signs ----------------------------------------------------------------------------------------------

    async def is_up(self, health: str) -> bool:
        """Tell whether the task may be called running: without a health check, not before its published ports accept.

        A program that never listens there is called running after `bennu.ready.within` (10 s) all the same, but not the
        new version of a watched rollout: that would pass for good.
        """
        if health == "none" and self.container.readiness.is_asked:
            return self.container.readiness.ready is True
        if health != "none" or not self._tcp_targets() or await self._listens():
            return True
        service = self.service
        if service is not None and is_on_trial(service.service, self.row.task):
            return False
        return self._is_late()

    async def _listens(self) -> bool:
        if not self._accepts:
            self._accepts = bool(await is_listening(self.container.record.pid, self._tcp_targets()))
        return self._accepts

    def _is_late(self) -> bool:
        return time.time_ns() > self.container.record.started_at_ns + self._label_ns(READY_LABEL, READY_WITHIN_NS)

    def look_again_s(self, health: str) -> float | None:
        """Compute after how many seconds to ask again for a sign that reports no change.

        None: there is no such sign.
        """
        if health == "none" and self.container.readiness.is_asked:
            return ASK_READINESS_S
        if health != "none" or not self._tcp_targets() or self._accepts:
            return None
        return LATE_LISTENER_S if self._is_late() else LOOK_FOR_LISTENER_S

    async def look(self, state: TaskState, health: str, *, in_balancer: bool) -> Backend:
        is_running = state is TaskState.RUNNING
        accepts: bool | None = None
        if is_running and health == "none" and self._tcp_targets():
            accepts = await self._listens()
        healthy = None if health == "none" else is_running and health != "unhealthy"
        readiness = self.container.readiness
        label_ready = readiness.ready is True if readiness.is_asked else None
        return Backend(
            readiness=decide_ready(Signs(state, healthy=healthy, label_ready=label_ready, port_accepts=accepts)),
            in_balancer=in_balancer,
            left_at_ns=self.left_at_ns,
            may_serve=self._is_its_turn(),
        )

    async def look_at_drain(self, *, in_balancer: bool) -> Backend:
        serves = in_balancer or (bool(self.host_ports) and not self.are_ports_shut)
        seen = await self._look_at_sockets()
        return Backend(
            readiness=decide_ready(Signs(TaskState.RUNNING)),
            in_balancer=serves,
            left_at_ns=self.left_at_ns,
            is_to_stop=True,
            has_tcp=True,
            has_udp=seen is not None and seen.takes_datagrams,
            connections=None if seen is None else seen.connections,
            deadline_ns=self._drain_deadline_ns(),
        )

    @property
    def drain_left_ns(self) -> int | None:
        """The nanoseconds that its connections may still last; None when it is not being drained."""
        if not self.is_stopping or self.left_at_ns is None:
            return None
        return max(0, self.left_at_ns + self._drain_deadline_ns() - time.monotonic_ns())

    async def _look_at_sockets(self) -> Sockets | None:
        """Read the task's sockets, with the connections that are on their way here.

        A connection that got through between two looks is seen by the last look.
        """
        pid, targets = self.container.record.pid, self._tcp_targets()
        seen = await look_at_sockets(pid, targets)
        if seen is None or seen.connections:
            return seen
        coming = await count_connecting({one.ip_address for one in self._endpoints()}, targets)
        return replace(seen, connections=coming) if coming else await look_at_sockets(pid, targets)

    def _tcp_targets(self) -> list[int]:
        return [port.target for port in (*self._ingress_ports, *self.host_ports) if port.protocol == "tcp"]

    def _drain_deadline_ns(self) -> int:
        return self._label_ns(DRAIN_LABEL, DEFAULT_DRAIN_DEADLINE_NS)

    def _label_ns(self, name: str, default_ns: int) -> int:
        """Read a duration from a label of the container, or else of the service as it is now.

        A change of the service's label is meant for this task too.
        """
        service = self.service
        of_service = service.labels if service else self._last_row.service_labels
        labels = dict(of_service) | dict(self.container.record.config.labels or {})
        text = labels.get(name, "")
        try:
            return parse_duration(text) if text else default_ns
        except ValueError:
            return default_ns  # refused when a service is made; a container's label may say anything
