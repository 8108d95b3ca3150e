"""Who gets new connections to a service's published ports, and the drain of who gets them no longer.

The decisions are `orchestration/traffic.py`; here are its eyes (health, listening sockets, open connections) and its
hands (the kernel's balancer, through `Networks.set_ingress`).
"""

import asyncio
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Final

from bennu.cluster.connections import count_open, is_listening
from bennu.cluster.durations import parse_duration
from bennu.cluster.state import State
from bennu.engine.container import Container
from bennu.network import Networks
from bennu.network.ingress import Backend as Target
from bennu.network.ingress import IngressPort
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
from bennu.orchestration.watched import may_serve

if TYPE_CHECKING:
    from bennu.cluster.controller import Controller

LOOK_FOR_LISTENER_S: Final = 0.03
COUNT_AGAIN_S: Final = 0.05
DRAIN_LABEL: Final = "bennu.drain.deadline"
READY_LABEL: Final = "bennu.ready.within"
READY_WITHIN_NS: Final = 10 * 10**9
PortKey = tuple[str, int]


class Traffic:
    """The balancer of this node."""

    def __init__(self, networks: Networks, state: State) -> None:
        self._networks = networks
        self.state = state
        self._changing = asyncio.Lock()

    def serves(self, task_id: str) -> bool:
        return any(one.owner == task_id for port in self._networks.ingress for one in port.backends)

    async def enter(self, task_id: str, ip: str, ports: Collection[PortSpec]) -> None:
        """When this returns it gets new connections."""
        async with self._changing:
            table = self._without(lambda owner: owner == task_id)
            for port in ports:
                table.setdefault((port.protocol, port.published), set()).add(Target(task_id, ip, port.target))
            await self._write(table)

    async def leave(self, task_id: str) -> None:
        """When this returns it gets no new connection; those it has go on."""
        async with self._changing:
            if self.serves(task_id):
                await self._write(self._without(lambda owner: owner == task_id))

    async def keep_only(self, task_ids: set[str]) -> None:
        """Whoever is not among these leaves."""
        async with self._changing:
            if any(one.owner not in task_ids for port in self._networks.ingress for one in port.backends):
                await self._write(self._without(lambda owner: owner not in task_ids))

    def _without(self, leaves: Callable[[str], bool]) -> dict[PortKey, set[Target]]:
        return {
            (port.proto, port.published): {one for one in port.backends if not leaves(one.owner)}
            for port in self._networks.ingress
        }

    async def _write(self, table: dict[PortKey, set[Target]]) -> None:
        ports = [IngressPort(*key, tuple(sorted(targets))) for key, targets in table.items() if targets]
        await self._networks.set_ingress(ports)

    def backend_of(self, controller: "Controller", container: Container) -> "Serving":
        return Serving(self, controller, container)


class Serving:
    """One task's place in the balancer."""

    def __init__(self, traffic: Traffic, controller: "Controller", container: Container) -> None:
        self._traffic = traffic
        self._controller = controller
        self._container = container
        self._accepts = False
        self._left_at_ns: int | None = None
        self._ports = self._own_ports()

    def _own_ports(self) -> list[PortSpec]:
        """Its ports in ingress mode, with the numbers really published."""
        row = self._controller.row
        asked = [port for port in (row.task.endpoint.ports if row.task.endpoint else ()) if _is_ingress(port)]
        service = self._traffic.state.services.get(row.task.service_id)
        used = {(port.target, port.protocol): port for port in (service.ports if service else ()) if _is_ingress(port)}
        chosen = [port if port.published else used.get((port.target, port.protocol), port) for port in asked]
        return [port for port in chosen if port.published]

    @property
    def _task_id(self) -> str:
        return self._controller.row.id

    async def is_up(self, health: str) -> bool:
        """Whether it may be called running: without a health check, not before its published ports accept connections.

        A program that never listens there is called running after `bennu.ready.within` (10 s) all the same.
        """
        if health != "none" or not self._tcp_targets() or await self._listens():
            return True
        return time.time_ns() > self._container.record.started_at_ns + self._label_ns(READY_LABEL, READY_WITHIN_NS)

    async def _listens(self) -> bool:
        if not self._accepts:
            self._accepts = bool(await is_listening(self._container.record.pid, self._tcp_targets()))
        return self._accepts

    async def follow(self, state: TaskState, health: str) -> float | None:
        """Enter or leave as the signs say. Answers after how many seconds to look again; None: when told."""
        if not self._ports:
            return None
        while True:
            plan = plan_traffic(await self._look(state, health), now_ns=time.monotonic_ns())
            if plan.step is Step.ENTER:
                await self._traffic.enter(self._task_id, self._ip(), self._ports)
            elif plan.step is Step.LEAVE:
                await self._leave()
            else:
                waits_for_listener = health == "none" and bool(self._tcp_targets()) and not self._accepts
                return LOOK_FOR_LISTENER_S if waits_for_listener else None

    async def drain(self) -> None:
        """Leave, then wait until nobody is connected any more or the deadline has passed."""
        if not self._ports:
            return
        while True:
            plan = plan_traffic(await self._look_at_drain(), now_ns=time.monotonic_ns())
            if plan.step is Step.LEAVE:
                await self._leave()
            elif plan.step is Step.STOP:
                return
            else:
                await asyncio.sleep(COUNT_AGAIN_S)

    async def abandon(self) -> None:
        """It has ended: nothing is left to drain."""
        if self._ports:
            await self._traffic.leave(self._task_id)

    async def _leave(self) -> None:
        await self._traffic.leave(self._task_id)
        self._left_at_ns = time.monotonic_ns()

    async def _look(self, state: TaskState, health: str) -> Backend:
        is_running = state is TaskState.RUNNING
        accepts: bool | None = None
        if is_running and health == "none" and self._tcp_targets():
            accepts = await self._listens()
        healthy = None if health == "none" else is_running and health != "unhealthy"
        row = self._controller.row
        service = self._traffic.state.services.get(row.task.service_id)
        return Backend(
            readiness=decide_ready(Signs(state, healthy=healthy, port_accepts=accepts)),
            in_balancer=self._traffic.serves(self._task_id),
            left_at_ns=self._left_at_ns,
            may_serve=service is None or may_serve(service.service, row.task),
        )

    async def _look_at_drain(self) -> Backend:
        serves = self._traffic.serves(self._task_id)
        if not serves and self._left_at_ns is None and self._controller.row.task.running_since_ns is not None:
            # It may have served in the time of an earlier daemon: count its connections all the same.
            self._left_at_ns = time.monotonic_ns()
        tcp = self._tcp_targets()
        return Backend(
            readiness=decide_ready(Signs(TaskState.RUNNING)),
            in_balancer=serves,
            left_at_ns=self._left_at_ns,
            is_to_stop=True,
            has_tcp=bool(tcp),
            has_udp=any(port.protocol == "udp" for port in self._ports),
            connections=await count_open(self._container.record.pid, tcp) if tcp else 0,
            deadline_ns=self._label_ns(DRAIN_LABEL, DEFAULT_DRAIN_DEADLINE_NS),
        )

    def _tcp_targets(self) -> list[int]:
        return [port.target for port in self._ports if port.protocol == "tcp"]

    def _label_ns(self, name: str, default_ns: int) -> int:
        """A duration from a label of the container or the service."""
        labels = dict(self._controller.row.service_labels) | dict(self._container.record.config.labels or {})
        text = labels.get(name, "")
        try:
            return parse_duration(text) if text else default_ns
        except ValueError:
            return default_ns  # refused when a service is made; a container's label may say anything

    def _ip(self) -> str:
        sandbox = self._container.record.sandbox
        endpoint = sandbox.gateway_endpoint() if sandbox else None
        if endpoint is None and sandbox and sandbox.endpoints:
            endpoint = sandbox.endpoints[0]
        return endpoint.ip_address if endpoint else ""


def _is_ingress(port: PortSpec) -> bool:
    return port.mode is PublishMode.INGRESS
