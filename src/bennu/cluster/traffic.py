"""Who gets new connections to a service's published ports, and the drain of who gets them no longer.

The decisions are `orchestration/traffic.py`; here are its eyes (health, listening sockets, open connections) and its
hands (the kernel's balancer, through `Networks.set_ingress`).
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from bennu.cluster.connections import count_open, is_listening
from bennu.cluster.durations import parse_duration
from bennu.cluster.records import ServiceRow
from bennu.cluster.state import State
from bennu.engine.container import Container
from bennu.engine.supervisor import Supervisor
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
LATE_LISTENER_S: Final = 1.0
COUNT_AGAIN_S: Final = 0.05
ASK_READINESS_S: Final = 0.25
SUCCESSOR_S: Final = 2.0
DRAIN_LABEL: Final = "bennu.drain.deadline"
READY_LABEL: Final = "bennu.ready.within"
READY_WITHIN_NS: Final = 10 * 10**9
PortKey = tuple[str, int]
log = logging.getLogger(__name__)


class Traffic:
    """The balancer of this node."""

    def __init__(self, networks: Networks, state: State) -> None:
        self._networks = networks
        self.state = state
        self._changing = asyncio.Lock()
        self._ready: dict[str, Serving] = {}  # by task: who could serve, also when it is another version's turn
        self._servings: dict[str, Serving] = {}  # by container: every task that runs

    def serves(self, task_id: str) -> bool:
        return any(one.owner == task_id for port in self._networks.ingress for one in port.backends)

    def note_ready(self, serving: "Serving", *, is_ready: bool) -> None:
        """Whether a task could serve if it were its turn."""
        if is_ready:
            self._ready[serving.task_id] = serving
        else:
            self._ready.pop(serving.task_id, None)

    async def arrange(self, service_id: str) -> None:
        """In one transaction of the kernel: of the ready tasks of a service those enter whose turn it is, the others
        leave. While there is nobody whose turn it is, the others stay."""
        async with self._changing:
            await self._rearrange(service_id)

    async def leave(self, task_id: str) -> None:
        """When this returns it gets no new connection; those it has go on. Ready ones of its service enter with it."""
        async with self._changing:
            leaving = self._ready.pop(task_id, None)
            if not self.serves(task_id):
                return
            row = self.state.tasks.get(task_id)
            service_id = leaving.service_id if leaving else row.task.service_id if row else ""
            await self._rearrange(service_id, leaving=task_id)

    async def _rearrange(self, service_id: str, *, leaving: str = "") -> None:
        service = self.state.services.get(service_id)
        ours = {key: one for key, one in self._ready.items() if one.service_id == service_id}
        chosen = {key: one for key, one in ours.items() if one.may_take_turn(service)}
        out = {key for key in ours if key not in chosen} if chosen else set()
        table = self._without(lambda owner: owner == leaving or owner in out or owner in chosen)
        for one in chosen.values():
            for port, target in one.targets():
                table.setdefault((port.protocol, port.published), set()).add(target)
        await self._write(table)

    def others_of(self, service_id: str, task_id: str) -> bool:
        """Whether somebody else of the service gets connections."""
        owners = {one.owner for port in self._networks.ingress for one in port.backends} - {task_id}
        return any(row.id in owners for row in self.state.tasks_of(service_id))

    async def shut_ports(self, container: Container) -> None:
        await self._networks.shut_ports(container.id)

    async def reopen_ports(self, container: Container) -> None:
        await self._networks.reopen_ports(container.id)

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
        serving = self._servings[container.id] = Serving(self, controller, container)
        return serving

    def forget(self, container: Container) -> None:
        """It has ended."""
        self._servings.pop(container.id, None)

    def is_draining(self, task_id: str) -> bool:
        return any(one.task_id == task_id and one.is_parting for one in self._servings.values())

    @asynccontextmanager
    async def parting(self, container: Supervisor) -> AsyncIterator[None]:
        """Whoever stops it, and why ever: a task leaves the balancer first, and its connections end or their deadline
        passes. One that has not ended after all serves again."""
        serving = self._servings.get(container.id)
        if serving is None:
            yield
            return
        serving.partings += 1
        try:
            await _until_first(serving.drain(), container.exited.wait())
            yield
        finally:
            serving.partings -= 1
            if container.record.running:
                await serving.come_back()


class Serving:
    """One task's place in the balancer."""

    def __init__(self, traffic: Traffic, controller: "Controller", container: Container) -> None:
        self._traffic = traffic
        self._controller = controller
        self._container = container
        self.partings = 0  # stops under way: who is to be stopped takes nothing new
        self._accepts = False
        self._is_shut = False  # its ports in host mode are
        self._left_at_ns: int | None = None
        self._host_ports = [port for port in self._asked() if port.mode is PublishMode.HOST]
        self._ingress_ports = self._own_ingress_ports()

    def _asked(self) -> Sequence[PortSpec]:
        endpoint = self._controller.row.task.endpoint
        return endpoint.ports if endpoint else ()

    def _own_ingress_ports(self) -> list[PortSpec]:
        """With the numbers really published."""
        row = self._controller.row
        asked = [port for port in self._asked() if _is_ingress(port)]
        service = self._traffic.state.services.get(row.task.service_id)
        used = {(port.target, port.protocol): port for port in (service.ports if service else ()) if _is_ingress(port)}
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

    def may_take_turn(self, service: ServiceRow | None) -> bool:
        """Whether it is to have new connections, if it is ready for them."""
        if self._controller.is_to_end or self.is_parting:
            return False
        return service is None or may_serve(service.service, self._controller.row.task)

    def targets(self) -> list[tuple[PortSpec, Target]]:
        ip = self._ip()
        return [(port, Target(self.task_id, ip, port.target)) for port in self._ingress_ports] if ip else []

    async def is_up(self, health: str) -> bool:
        """Whether it may be called running: without a health check, not before its published ports accept connections.

        A program that never listens there is called running after `bennu.ready.within` (10 s) all the same.
        """
        if health == "none" and self._container.readiness.is_asked:
            return self._container.readiness.ready is True
        if health != "none" or not self._tcp_targets() or await self._listens():
            return True
        return time.time_ns() > self._container.record.started_at_ns + self._label_ns(READY_LABEL, READY_WITHIN_NS)

    async def _listens(self) -> bool:
        if not self._accepts:
            self._accepts = bool(await is_listening(self._container.record.pid, self._tcp_targets()))
        return self._accepts

    async def follow(self, state: TaskState, health: str) -> float | None:
        """Enter or leave as the signs say. Answers after how many seconds to look again; None: when told."""
        if self.is_parting:
            return None
        if not self._ingress_ports:
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
        if not self._ingress_ports and not self._host_ports:
            return
        await self._wait_successor()
        while True:
            plan = plan_traffic(await self._look_at_drain(), now_ns=time.monotonic_ns())
            if plan.step is Step.LEAVE:
                await self._leave()
            elif plan.step is Step.STOP:
                return
            else:
                await asyncio.sleep(COUNT_AGAIN_S)

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
        if self._ingress_ports:
            await self._traffic.leave(self.task_id)

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

    def _ip(self) -> str:
        sandbox = self._container.record.sandbox
        endpoint = sandbox.gateway_endpoint() if sandbox else None
        if endpoint is None and sandbox and sandbox.endpoints:
            endpoint = sandbox.endpoints[0]
        return endpoint.ip_address if endpoint else ""


async def _until_first(drain: Coroutine[Any, Any, None], end: Coroutine[Any, Any, Any]) -> None:
    """Until either is over. A drain that fails is told and does not keep anything from being stopped."""
    draining, ended = asyncio.ensure_future(drain), asyncio.ensure_future(end)
    try:
        await asyncio.wait((draining, ended), return_when=asyncio.FIRST_COMPLETED)
    finally:
        draining.cancel()
        ended.cancel()
    if draining.done() and not draining.cancelled() and (error := draining.exception()) is not None:
        log.warning("a task could not be drained: %s", error)


def _is_ingress(port: PortSpec) -> bool:
    return port.mode is PublishMode.INGRESS
