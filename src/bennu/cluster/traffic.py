"""Who gets new connections to a service's ports, addresses and names: the tasks that are ready and whose turn it is.

What one task is ready for and when it leaves is told by its `serving.py`; here the tasks of a service are put together,
and `Networks.balancer` carries it out.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from bennu.cluster.ports import is_ingress
from bennu.cluster.records import ServiceRow
from bennu.cluster.serving import Serving
from bennu.cluster.state import State
from bennu.cluster.translate import read_template
from bennu.engine.container import Container
from bennu.engine.supervisor import Supervisor
from bennu.network import Networks
from bennu.network.frontends import FrontendAddress
from bennu.network.frontends import ServiceBackend as Target

if TYPE_CHECKING:
    from bennu.cluster.controller import Controller

log = logging.getLogger(__name__)


class Traffic:
    """Who serves what on this node. `present` says what a service shows, `arrange` and `leave` who is behind it."""

    def __init__(self, networks: Networks, state: State) -> None:
        self.networks = networks
        self._balancer = networks.balancer
        self.state = state
        # By service and task: who could serve, also when it is another version's turn.
        self._ready: dict[str, dict[str, Serving]] = defaultdict(dict)
        self._servings: dict[str, Serving] = {}  # by container: every task that runs

    def serves(self, task_id: str) -> bool:
        return bool(self._balancer.service_of(task_id))

    def note_ready(self, serving: Serving, *, is_ready: bool) -> None:
        """Whether a task could serve if it were its turn."""
        if is_ready:
            self._ready[serving.service_id][serving.task_id] = serving
        else:
            self._unready(serving.service_id, serving.task_id)

    def _unready(self, service_id: str, task_id: str) -> None:
        self._ready[service_id].pop(task_id, None)
        if not self._ready[service_id]:
            del self._ready[service_id]

    def present(self, service_id: str) -> bool:
        """Its addresses, names and ports are those of its row now; without a row and without tasks it is gone.

        Takes effect with the next `write`; False if nothing has changed. While tasks of a removed service drain it
        keeps its addresses, so that nobody else gets them.
        """
        row, front = self.state.services.get(service_id), self._balancer.get(service_id)
        if self.state.why_aside(self.state.services, service_id):
            return False  # it shows what it showed
        if row is not None:
            names = names_on(row)
            vips = {vip.network_id: vip.address.partition("/")[0] for vip in row.vips}
            found = {key: self.networks.get(key) for key in dict.fromkeys((*vips, *names))}
            places = tuple(
                FrontendAddress(network_id=key, bridge=network.bridge, vip=vips.get(key, ""), names=names.get(key, ()))
                for key, network in found.items()
                if network is not None and network.scope == "swarm"
            )
            ports = tuple((port.protocol, port.published) for port in row.ports if is_ingress(port) and port.published)
            return self._balancer.put(replace(front, addresses=places, ports=ports))
        if self.state.tasks_of(service_id):
            places = tuple(replace(place, names=()) for place in front.addresses if place.vip)
            return self._balancer.put(replace(front, addresses=places, ports=(), backends=()))
        self._ready.pop(service_id, None)
        return self._balancer.drop(service_id)

    async def write(self, *service_ids: str) -> None:
        """When this returns the kernel does what was said of these services. Raises: BennuError."""
        await self._balancer.write(*service_ids)

    async def arrange(self, service_id: str) -> None:
        """In one transaction of the kernel: of the ready tasks of a service those enter whose turn it is, the others
        leave. While there is nobody whose turn it is, the others stay."""
        self._rearrange(service_id)
        await self._balancer.write(service_id)

    async def leave(self, task_id: str) -> None:
        """When this returns it gets no new connection, whoever took it out; those it has go on.

        Ready ones of its service enter with it. Raises: BennuError.
        """
        row = self.state.tasks.get(task_id)
        service_id = self._balancer.service_of(task_id) or (row.task.service_id if row else "")
        self._unready(service_id, task_id)
        if self.serves(task_id):
            self._rearrange(service_id, leaving=task_id)
        if service_id:
            await self._balancer.write(service_id)

    def _rearrange(self, service_id: str, *, leaving: str = "") -> None:
        service = self.state.services.get(service_id)
        if service is None:  # removed: nobody enters any more
            self.present(service_id)
            return
        ours = self._ready.get(service_id, {})
        chosen = {key: one for key, one in ours.items() if one.may_take_turn(service)}
        leaves = {leaving, *chosen, *(ours if chosen else ())}
        front = self._balancer.get(service_id)
        stay = [backend for backend in front.backends if backend.owner not in leaves]
        come = [backend for one in chosen.values() if (backend := one.backend()) is not None]
        self._balancer.put(replace(front, backends=tuple(sorted((*stay, *come), key=lambda one: one.owner))))

    def others_of(self, service_id: str, task_id: str) -> bool:
        """Whether somebody else of the service gets connections."""
        return any(backend.owner != task_id for backend in self._balancer.get(service_id).backends)

    async def shut_ports(self, container: Container) -> None:
        await self.networks.shut_ports(container.id)

    async def reopen_ports(self, container: Container) -> None:
        await self.networks.reopen_ports(container.id)

    async def take_up(self) -> None:
        """After the last daemon: what is no service or no task any more is gone, the others serve on."""
        known = [*self._balancer.frontends, *self.state.services.rows]
        for service_id in known:
            self.present(service_id)
        for front in list(self._balancer.frontends.values()):
            stay = tuple(backend for backend in front.backends if backend.owner in self.state.tasks.rows)
            self._balancer.put(replace(front, backends=stay))
        await self._balancer.write(*known)

    async def clear(self) -> None:
        """Nothing is shown any more."""
        gone = list(self._balancer.frontends)
        for service_id in gone:
            self._balancer.drop(service_id)
        self._ready.clear()
        await self._balancer.write(*gone)

    async def forget_flows(self, backend: Target) -> None:
        """Who talks by UDP to a task that has left goes on with another one."""
        await self._balancer.forget_flows(backend.ips())

    def backend_of(self, controller: "Controller", container: Container) -> Serving:
        serving = self._servings[container.id] = Serving(self, controller, container)
        return serving

    def forget(self, container: Container) -> None:
        """It has ended."""
        self._servings.pop(container.id, None)

    def drain_left_ns(self, task_id: str) -> int | None:
        """How much longer its connections may last; None when it is not being drained."""
        return next((one.drain_left_ns for one in self._servings.values() if one.task_id == task_id), None)

    def parting(self, container: Supervisor) -> AbstractAsyncContextManager[None] | None:
        """Whoever stops it, and why ever: a task leaves the balancer first, and its connections end or their deadline
        passes. One that has not ended after all serves again. None: it has no connections from here."""
        serving = self._servings.get(container.id)
        return self._part(serving, container) if serving is not None else None

    @asynccontextmanager
    async def _part(self, serving: Serving, container: Supervisor) -> AsyncIterator[None]:
        serving.partings += 1
        try:
            await _until_first(serving.drain(), container.exited.wait())
            yield
        finally:
            serving.partings -= 1
            if container.record.running:
                await serving.come_back()


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


def names_on(row: ServiceRow) -> dict[str, tuple[str, ...]]:
    """What a service is called on each network it is attached to, by the network's id."""
    attachments = read_template(row.service.spec.task.container).networks or ()
    return {item.target: tuple(dict.fromkeys((row.name, *(item.aliases or ())))) for item in attachments}
