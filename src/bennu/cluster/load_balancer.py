"""The load balancer of this node: which tasks get the connections to a service's ports, addresses and names.

            ready, and its turn                 to be stopped, not ready, or another's turn
    task ───────────────────────► in ─────────────────────────────────────────────────────► out ──► drained ──► stopped

`task_backend.py` reads a task's signs, `orchestration/tasks/traffic.py` decides what follows from them, and
`Networks.balancer` carries it out in the kernel. The engine asks `hold` before each stop signal, no matter
which part stops the container.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final

from msgspec.structs import replace

from bennu.cluster.convert import read_template
from bennu.cluster.ports import is_ingress
from bennu.cluster.state import ClusterState
from bennu.cluster.tables import ServiceRow, TaskRow
from bennu.cluster.task_backend import LOOK_FOR_LISTENER_S, TaskBackend
from bennu.engine.container import Container
from bennu.engine.context import Stoppable
from bennu.network import Networks
from bennu.network.frontends import Frontend, FrontendAddress
from bennu.orchestration.model.states import TaskState
from bennu.orchestration.rollout.blue_green import may_serve
from bennu.orchestration.tasks.traffic import Step, plan_traffic

COUNT_AGAIN_S: Final = 0.05
SUCCESSOR_S: Final = 2.0
log = logging.getLogger(__name__)


class LoadBalancer:
    """The balancer of this node's services.

    `present` sets what a service shows; `follow`, `arrange` and `leave` set the tasks behind it.
    """

    def __init__(self, networks: Networks, state: ClusterState) -> None:
        self._networks = networks
        self._balancer = networks.balancer
        self._state = state
        # By service and task: who could serve, also when it is another version's turn.
        self._ready: dict[str, dict[str, TaskBackend]] = defaultdict(dict)
        self._backends: dict[str, TaskBackend] = {}  # by container: every task that runs

    def serves(self, task_id: str) -> bool:
        return bool(self._balancer.service_of(task_id))

    def drain_left_ns(self, task_id: str) -> int | None:
        """Compute how many nanoseconds a task's connections may still last; None when it is not being drained."""
        return next((one.drain_left_ns for one in self._backends.values() if one.task_id == task_id), None)

    # --- what a service shows -----------------------------------------------------------------------------------

    def present(self, service_id: str) -> bool:
        """Set a service's addresses, names and ports to those of its row.

        A service without a row and without tasks is dropped.

        Takes effect with the next `write`; False if nothing has changed. While tasks of a removed service drain, the
        service keeps its addresses, so that no other gets them.
        """
        row, front = self._state.services.get(service_id), self._balancer.get(service_id)
        if self._state.why_aside(self._state.services, service_id):
            return False  # it shows what it showed
        if row is not None:
            return self._balancer.put(self._shown(row, front))
        if self._state.tasks_of(service_id):
            places = tuple(replace(place, names=()) for place in front.addresses if place.vip)
            return self._balancer.put(replace(front, addresses=places, ports=(), backends=()))
        self._ready.pop(service_id, None)
        return self._balancer.drop(service_id)

    def _shown(self, row: ServiceRow, front: Frontend) -> Frontend:
        names = names_on(row)
        vips = {vip.network_id: vip.address.partition("/")[0] for vip in row.vips}
        found = {key: self._networks.get(key) for key in dict.fromkeys((*vips, *names))}
        places = tuple(
            FrontendAddress(network_id=key, bridge=network.bridge, vip=vips.get(key, ""), names=names.get(key, ()))
            for key, network in found.items()
            if network is not None and network.scope == "swarm"
        )
        ports = tuple((port.protocol, port.published) for port in row.ports if is_ingress(port) and port.published)
        return replace(front, addresses=places, ports=ports)

    async def write(self, *service_ids: str) -> None:
        """Write these services to the kernel; when this returns, the kernel does what was set. Raises: BennuError."""
        await self._balancer.write(*service_ids)

    async def take_up(self) -> None:
        """Take up what the last daemon left: drop services and tasks that are gone; the others serve on."""
        known = [*self._balancer.frontends, *self._state.services.rows]
        for service_id in known:
            self.present(service_id)
        for front in list(self._balancer.frontends.values()):
            stay = tuple(backend for backend in front.backends if backend.owner in self._state.tasks.rows)
            self._balancer.put(replace(front, backends=stay))
        await self._balancer.write(*known)

    async def clear(self) -> None:
        """Drop every service from the balancer."""
        gone = list(self._balancer.frontends)
        for service_id in gone:
            self._balancer.drop(service_id)
        self._ready.clear()
        await self._balancer.write(*gone)

    # --- who is behind it ---------------------------------------------------------------------------------------

    def add(self, row: TaskRow, container: Container, on_change: Callable[[], None]) -> TaskBackend:
        """Add a task whose container was started. `on_change` is called when a stop of it has failed."""
        backend = TaskBackend(self._networks, self._state, row, container, on_change)
        self._backends[container.id] = backend
        return backend

    async def drop(self, backend: TaskBackend) -> None:
        """Drop a task that has ended: nothing is left to drain. Raises: BennuError."""
        self._backends.pop(backend.container.id, None)
        if backend.is_balanced:
            await self.leave(backend.task_id)
            await self._forget_flows(backend)

    async def follow(self, backend: TaskBackend, state: TaskState, health: str) -> float | None:
        """Let a task enter or leave as its signs say.

        Answers after how many seconds to look again; None: when something is reported. Raises: BennuError.
        """
        if backend.is_stopping:
            return None
        if not backend.is_balanced:
            return None if state is TaskState.RUNNING else backend.look_again_s(health)
        seen = await backend.look(state, health, in_balancer=self.serves(backend.task_id))
        self._note_ready(backend, is_ready=seen.readiness.is_ready)
        plan = plan_traffic(seen, now_ns=time.monotonic_ns())
        if plan.step is Step.LEAVE and not seen.readiness.is_ready:
            await self._take_out(backend)
        elif plan.step in (Step.ENTER, Step.LEAVE):
            await self.arrange(backend.service_id)
            if self.serves(backend.task_id) is seen.in_balancer:
                return LOOK_FOR_LISTENER_S  # it stays until those whose turn it is are ready
        return backend.look_again_s(health)

    async def arrange(self, service_id: str) -> None:
        """Let the ready tasks of a service that may serve enter the balancer, and let the others leave.

        This is one transaction of the kernel. While no ready task may serve, the others stay. Raises: BennuError.
        """
        self._rearrange(service_id)
        await self._balancer.write(service_id)

    async def leave(self, task_id: str) -> None:
        """Take a task out of the balancer; when this returns it gets no new connection, and those it has go on.

        Ready tasks of its service enter at the same time. Raises: BennuError.
        """
        row = self._state.tasks.get(task_id)
        service_id = self._balancer.service_of(task_id) or (row.task.service_id if row else "")
        self._unready(service_id, task_id)
        if self.serves(task_id):
            self._rearrange(service_id, leaving=task_id)
        if service_id:
            await self._balancer.write(service_id)

    def _note_ready(self, backend: TaskBackend, *, is_ready: bool) -> None:
        """Note whether a task could serve if it were its turn."""
        if is_ready:
            self._ready[backend.service_id][backend.task_id] = backend
        else:
            self._unready(backend.service_id, backend.task_id)

    def _unready(self, service_id: str, task_id: str) -> None:
        self._ready[service_id].pop(task_id, None)
        if not self._ready[service_id]:
            del self._ready[service_id]

    def _rearrange(self, service_id: str, *, leaving: str = "") -> None:
        if service_id not in self._state.services.rows:  # removed: nobody enters any more
            self.present(service_id)
            return
        ours = self._ready.get(service_id, {})
        chosen = {key: one for key, one in ours.items() if one.may_take_turn()}
        leaves = {leaving, *chosen, *(ours if chosen else ())}
        front = self._balancer.get(service_id)
        stay = [backend for backend in front.backends if backend.owner not in leaves]
        come = [target for one in chosen.values() if (target := one.target()) is not None]
        self._balancer.put(replace(front, backends=tuple(sorted((*stay, *come), key=lambda one: one.owner))))

    # --- before it is stopped -----------------------------------------------------------------------------------

    def hold(self, container: Stoppable) -> AbstractAsyncContextManager[None] | None:
        """Make the engine's pre-stop hook, which takes the task out of the balancer and drains it.

        Once entered, the task has left the balancer, and its connections have ended or their deadline has passed. None:
        the container has no connections from here.
        """
        backend = self._backends.get(container.id)
        return self._held(backend, container) if backend is not None else None

    @asynccontextmanager
    async def _held(self, backend: TaskBackend, container: Stoppable) -> AsyncIterator[None]:
        backend.stops += 1
        try:
            await _until_first(self._drain(backend), container.exited.wait())
            yield
        finally:
            backend.stops -= 1
            if container.record.running:
                await self._come_back(backend)

    async def _come_back(self, backend: TaskBackend) -> None:
        """Let a task that was not stopped after all serve again. Raises: BennuError."""
        if backend.are_ports_shut and not backend.is_stopping:
            await self._networks.reopen_ports(backend.container.id)
            backend.are_ports_shut = False
        backend.on_change()

    async def _drain(self, backend: TaskBackend) -> None:
        """Take the task out, then wait until no connection is left or the deadline has passed. Raises: BennuError."""
        if not backend.is_balanced and not backend.host_ports:
            return
        await self._wait_successor(backend)
        if self._may_have_served(backend):
            await self._take_out(backend)
        while True:
            seen = await backend.look_at_drain(in_balancer=self.serves(backend.task_id))
            plan = plan_traffic(seen, now_ns=time.monotonic_ns())
            if plan.step is Step.LEAVE:
                await self._take_out(backend)
            elif plan.step is Step.STOP:
                await self._forget_flows(backend)
                return
            else:
                await asyncio.sleep(COUNT_AGAIN_S)

    def _may_have_served(self, backend: TaskBackend) -> bool:
        """Tell whether the task may have connections, even if it no longer serves.

        A change by another part that took it out may still be on its way to the kernel, and in the time of an earlier
        daemon it may have got connections that it still has.
        """
        return backend.has_run or backend.left_at_ns is not None or self.serves(backend.task_id)

    async def _wait_successor(self, backend: TaskBackend) -> None:
        """Keep the last serving task in the balancer until the tasks that are said to run have entered.

        A daemon that just came back has heard of those tasks, and has not looked at them yet.
        """
        give_up_at = time.monotonic() + SUCCESSOR_S
        while time.monotonic() < give_up_at and self.serves(backend.task_id):
            service = backend.service
            coming = [
                row
                for row in self._state.tasks_of(backend.service_id)
                if row.id != backend.task_id
                and row.task.is_running
                and service is not None
                and may_serve(service.service, row.task)
            ]
            others = (one.owner != backend.task_id for one in self._balancer.get(backend.service_id).backends)
            if not coming or any(others):
                return
            await self.arrange(backend.service_id)
            await asyncio.sleep(COUNT_AGAIN_S)

    async def _take_out(self, backend: TaskBackend) -> None:
        await self.leave(backend.task_id)
        if backend.is_stopping and backend.host_ports:
            await self._networks.shut_ports(backend.container.id)
            backend.are_ports_shut = True
        backend.left_at_ns = time.monotonic_ns()

    async def _forget_flows(self, backend: TaskBackend) -> None:
        """Delete the UDP flows to a task that has left, so that its clients go on with another one."""
        if backend.known_as is not None:
            await self._balancer.forget_flows(backend.known_as.ips())


async def _until_first(drain: Coroutine[Any, Any, None], end: Coroutine[Any, Any, Any]) -> None:
    """Wait until either is over. A failed drain is logged and prevents no stop."""
    draining, ended = asyncio.ensure_future(drain), asyncio.ensure_future(end)
    try:
        await asyncio.wait((draining, ended), return_when=asyncio.FIRST_COMPLETED)
    finally:
        draining.cancel()
        ended.cancel()
    if draining.done() and not draining.cancelled() and (error := draining.exception()) is not None:
        log.warning("a task could not be drained: %s", error)


def names_on(row: ServiceRow) -> dict[str, tuple[str, ...]]:
    """List a service's names on each network it is attached to, by the network's id."""
    attachments = read_template(row.service.spec.task.container).networks or ()
    return {item.target: tuple(dict.fromkeys((row.name, *(item.aliases or ())))) for item in attachments}
