"""One task's place in the balancer: when it enters, when it leaves, and its drain before it is stopped.

The decisions are `orchestration/traffic.py`; here are its eyes: health, listening sockets, open connections.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from bennu.cluster.connections import Sockets, count_connecting, is_listening, look_at_sockets
from bennu.cluster.ports import is_ingress
from bennu.cluster.records import ServiceRow
from bennu.engine.container import Container
from bennu.go.duration import parse_duration
from bennu.network import Endpoint
from bennu.network.fronts import Address, Port
from bennu.network.fronts import Backend as Target
from bennu.orchestration.spec import PortSpec
from bennu.orchestration.states import PublishMode, TaskState
from bennu.orchestration.traffic import (
    DEFAULT_DRAIN_DEADLINE_NS,
    Backend,
    Signs,
    Step,
    decide_ready,
    plan_traffic,
)
from bennu.orchestration.watched import is_on_trial, may_serve

if TYPE_CHECKING:
    from bennu.cluster.controller import Controller
    from bennu.cluster.traffic import Traffic

LOOK_FOR_LISTENER_S: Final = 0.03
LATE_LISTENER_S: Final = 1.0
COUNT_AGAIN_S: Final = 0.05
ASK_READINESS_S: Final = 0.25
SUCCESSOR_S: Final = 2.0
DRAIN_LABEL: Final = "bennu.drain.deadline"
READY_LABEL: Final = "bennu.ready.within"
READY_WITHIN_NS: Final = 10 * 10**9


class Serving:
    """One task's place in the balancer."""

    def __init__(self, traffic: "Traffic", controller: "Controller", container: Container) -> None:
        self._traffic = traffic
        self._controller = controller
        self._container = container
        self.partings = 0  # stops under way: who is to be stopped takes nothing new
        self._accepts = False
        self._is_shut = False  # its ports in host mode are
        self._left_at_ns: int | None = None
        self._known_as: Target | None = None  # as the balancer had it last
        self._host_ports = [port for port in self._asked() if port.mode is PublishMode.HOST]
        self._ingress_ports = self._own_ingress_ports()
        # By a port of the ingress, or by its service's name and address.
        self._is_balanced = bool(self._ingress_ports) or self._is_on_swarm_network()

    def _asked(self) -> Sequence[PortSpec]:
        endpoint = self._controller.row.task.endpoint
        return endpoint.ports if endpoint else ()

    def _own_ingress_ports(self) -> list[PortSpec]:
        """With the numbers really published."""
        row = self._controller.row
        asked = [port for port in self._asked() if is_ingress(port)]
        service = self._traffic.state.services.get(row.task.service_id)
        used = {(port.target, port.protocol): port for port in (service.ports if service else ()) if is_ingress(port)}
        chosen = [port if port.published else used.get((port.target, port.protocol), port) for port in asked]
        return [port for port in chosen if port.published]

    @property
    def task_id(self) -> str:
        return self._controller.row.id

    @property
    def service_id(self) -> str:
        return self._controller.row.task.service_id

    @property
    def is_parting(self) -> bool:
        return self.partings > 0

    @property
    def drain_left_ns(self) -> int | None:
        """How much longer its connections may last; None when it is not being drained."""
        if not self.is_parting or self._left_at_ns is None:
            return None
        end_ns = self._left_at_ns + self._label_ns(DRAIN_LABEL, DEFAULT_DRAIN_DEADLINE_NS)
        return max(0, end_ns - time.monotonic_ns())

    def may_take_turn(self, service: ServiceRow | None) -> bool:
        """Whether it is to have new connections, if it is ready for them."""
        if self._controller.is_to_end or self.is_parting:
            return False
        return service is None or may_serve(service.service, self._controller.row.task)

    def _endpoints(self) -> list[Endpoint]:
        sandbox = self._container.record.sandbox
        return list(sandbox.endpoints) if sandbox else []

    def _is_on_swarm_network(self) -> bool:
        found = (self._traffic.networks.get(endpoint.network_id) for endpoint in self._endpoints())
        return any(network is not None and network.scope == "swarm" for network in found)

    def backend(self) -> Target | None:
        """Where its connections go; None while it has no address."""
        sandbox = self._container.record.sandbox
        endpoints = self._endpoints()
        way_in = next((one for one in endpoints if self._is_ingress(one)), None)
        way_in = way_in or (sandbox.gateway_endpoint() if sandbox else None) or next(iter(endpoints), None)
        if way_in is None:
            return None
        self._known_as = Target(
            owner=self.task_id,
            ip=way_in.ip_address,
            addresses=tuple(
                Address(network_id=one.network_id, ip=one.ip_address, ip6=one.ipv6_address) for one in endpoints
            ),
            ports=tuple(
                Port(proto=port.protocol, published=port.published, target=port.target) for port in self._ingress_ports
            ),
        )
        return self._known_as

    def _is_ingress(self, endpoint: Endpoint) -> bool:
        network = self._traffic.networks.get(endpoint.network_id)
        return network is not None and network.ingress

    async def is_up(self, health: str) -> bool:
        """Whether it may be called running: without a health check, not before its published ports accept connections.

        A program that never listens there is called running after `bennu.ready.within` (10 s) all the same, but not the
        new version of a watched rollout: that would pass for good.
        """
        if health == "none" and self._container.readiness.is_asked:
            return self._container.readiness.ready is True
        if health != "none" or not self._tcp_targets() or await self._listens():
            return True
        service = self._traffic.state.services.get(self.service_id)
        if service is not None and is_on_trial(service.service, self._controller.row.task):
            return False
        return time.time_ns() > self._container.record.started_at_ns + self._label_ns(READY_LABEL, READY_WITHIN_NS)

    async def _listens(self) -> bool:
        if not self._accepts:
            self._accepts = bool(await is_listening(self._container.record.pid, self._tcp_targets()))
        return self._accepts

    async def follow(self, state: TaskState, health: str) -> float | None:
        """Enter or leave as the signs say. Answers after how many seconds to look again; None: when told."""
        if self.is_parting:
            return None
        if not self._is_balanced:
            return None if state is TaskState.RUNNING else self._look_again_s(health)
        backend = await self._look(state, health)
        self._traffic.note_ready(self, is_ready=backend.readiness.is_ready)
        plan = plan_traffic(backend, now_ns=time.monotonic_ns())
        if plan.step is Step.LEAVE and not backend.readiness.is_ready:
            await self._leave()
        elif plan.step in (Step.ENTER, Step.LEAVE):
            await self._traffic.arrange(self.service_id)
            if self._traffic.serves(self.task_id) is backend.in_balancer:
                return LOOK_FOR_LISTENER_S  # it stays until those whose turn it is are ready
        return self._look_again_s(health)

    def _look_again_s(self, health: str) -> float | None:
        """When a sign that tells nobody of its change is asked again."""
        if health == "none" and self._container.readiness.is_asked:
            return ASK_READINESS_S
        if health != "none" or not self._tcp_targets() or self._accepts:
            return None
        is_late = time.time_ns() > self._container.record.started_at_ns + self._label_ns(READY_LABEL, READY_WITHIN_NS)
        return LATE_LISTENER_S if is_late else LOOK_FOR_LISTENER_S

    async def drain(self) -> None:
        """Leave, then wait until nobody is connected any more or the deadline has passed. Raises: BennuError."""
        if not self._is_balanced and not self._host_ports:
            return
        await self._wait_successor()
        if self._may_have_served():
            await self._leave()
        while True:
            plan = plan_traffic(await self._look_at_drain(), now_ns=time.monotonic_ns())
            if plan.step is Step.LEAVE:
                await self._leave()
            elif plan.step is Step.STOP:
                await self._forget_flows()
                return
            else:
                await asyncio.sleep(COUNT_AGAIN_S)

    def _may_have_served(self) -> bool:
        """Also when it does no longer: somebody's change that took it out may still be on its way to the kernel, and
        in the time of an earlier daemon it may have got connections that it still has."""
        has_run = self._controller.row.task.running_since_ns is not None
        return has_run or self._left_at_ns is not None or self._traffic.serves(self.task_id)

    async def _wait_successor(self) -> None:
        """The last one leaves only after those that are said to run have entered: a daemon that just came back has
        heard of them, and has not looked at them yet."""
        give_up_at = time.monotonic() + SUCCESSOR_S
        while time.monotonic() < give_up_at and self._traffic.serves(self.task_id):
            service = self._traffic.state.services.get(self.service_id)
            coming = [
                row
                for row in self._traffic.state.tasks_of(self.service_id)
                if row.id != self.task_id
                and row.task.is_running
                and service is not None
                and may_serve(service.service, row.task)
            ]
            if not coming or self._traffic.others_of(self.service_id, self.task_id):
                return
            await self._traffic.arrange(self.service_id)
            await asyncio.sleep(COUNT_AGAIN_S)

    async def come_back(self) -> None:
        """It was not stopped after all. Raises: BennuError."""
        if self._is_shut and not self.is_parting:
            await self._traffic.reopen_ports(self._container)
            self._is_shut = False
        self._controller.poke()

    async def abandon(self) -> None:
        """It has ended: nothing is left to drain."""
        self._traffic.forget(self._container)
        if self._is_balanced:
            await self._traffic.leave(self.task_id)
            await self._forget_flows()

    async def _forget_flows(self) -> None:
        if self._known_as is not None:
            await self._traffic.forget_flows(self._known_as)

    async def _leave(self) -> None:
        await self._traffic.leave(self.task_id)
        if self.is_parting and self._host_ports:
            await self._traffic.shut_ports(self._container)
            self._is_shut = True
        self._left_at_ns = time.monotonic_ns()

    async def _look(self, state: TaskState, health: str) -> Backend:
        is_running = state is TaskState.RUNNING
        accepts: bool | None = None
        if is_running and health == "none" and self._tcp_targets():
            accepts = await self._listens()
        healthy = None if health == "none" else is_running and health != "unhealthy"
        readiness = self._container.readiness
        label_ready = readiness.ready is True if readiness.is_asked else None
        row = self._controller.row
        service = self._traffic.state.services.get(row.task.service_id)
        return Backend(
            readiness=decide_ready(Signs(state, healthy=healthy, label_ready=label_ready, port_accepts=accepts)),
            in_balancer=self._traffic.serves(self.task_id),
            left_at_ns=self._left_at_ns,
            may_serve=service is None or may_serve(service.service, row.task),
        )

    async def _look_at_drain(self) -> Backend:
        serves = self._traffic.serves(self.task_id) or (bool(self._host_ports) and not self._is_shut)
        seen = await self._look_at_sockets()
        return Backend(
            readiness=decide_ready(Signs(TaskState.RUNNING)),
            in_balancer=serves,
            left_at_ns=self._left_at_ns,
            is_to_stop=True,
            has_tcp=True,
            has_udp=seen is not None and seen.takes_datagrams,
            connections=None if seen is None else seen.connections,
            deadline_ns=self._label_ns(DRAIN_LABEL, DEFAULT_DRAIN_DEADLINE_NS),
        )

    async def _look_at_sockets(self) -> Sockets | None:
        """With those who are on their way here: whoever got through between two looks is seen by the last one."""
        pid, targets = self._container.record.pid, self._tcp_targets()
        seen = await look_at_sockets(pid, targets)
        if seen is None or seen.connections:
            return seen
        coming = await count_connecting({one.ip_address for one in self._endpoints()}, targets)
        return replace(seen, connections=coming) if coming else await look_at_sockets(pid, targets)

    @property
    def _ports(self) -> list[PortSpec]:
        return [*self._ingress_ports, *self._host_ports]

    def _tcp_targets(self) -> list[int]:
        return [port.target for port in self._ports if port.protocol == "tcp"]

    def _label_ns(self, name: str, default_ns: int) -> int:
        """A duration from a label of the container, or of the service as it is now: who changes it means this task."""
        row = self._controller.row
        service = self._traffic.state.services.get(row.task.service_id)
        of_service = service.labels if service else row.service_labels
        labels = dict(of_service) | dict(self._container.record.config.labels or {})
        text = labels.get(name, "")
        try:
            return parse_duration(text) if text else default_ns
        except ValueError:
            return default_ns  # refused when a service is made; a container's label may say anything
