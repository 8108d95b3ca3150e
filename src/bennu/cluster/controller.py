"""One task on this node, from its acceptance to its end.

        accepted → preparing → ready ─(desired: running)→ starting ─(healthy)→ running → complete | failed
                                                                             └(ordered)→ drained → shutdown

Level-triggered: each look compares what the task should be with what its container is, and takes one step. A look
follows each change of either, so an agent that begins in the middle of a task's life takes the same steps.
"""

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, Final

from bennu.cluster.images import provide_image
from bennu.cluster.ports import needs_ingress
from bennu.cluster.records import Attachment, BoundPort, TaskRow
from bennu.cluster.round_rows import Facts
from bennu.cluster.serving import Serving
from bennu.cluster.task_container import container_request
from bennu.cluster.translate import read_template
from bennu.engine.container import Container
from bennu.errors import BennuError, NotFound, NotModified
from bennu.lifecycle.death import Asker
from bennu.lifecycle.status import State
from bennu.orchestration.observe import Report
from bennu.orchestration.states import TaskState

if TYPE_CHECKING:
    from bennu.cluster.agent import Agent

UNHEALTHY: Final = "dockerexec: unhealthy container"
MESSAGES: Final = {
    TaskState.ACCEPTED: "accepted",
    TaskState.PREPARING: "preparing",
    TaskState.READY: "prepared",
    TaskState.STARTING: "starting",
    TaskState.RUNNING: "started",
    TaskState.COMPLETE: "finished",
    TaskState.SHUTDOWN: "shutdown",
}
log = logging.getLogger(__name__)


class Controller:
    """Drives one task. The agent sets `row` and `is_forgotten` and then pokes."""

    def __init__(self, agent: "Agent", row: TaskRow) -> None:
        self.row = row
        self.is_forgotten = False
        self._agent = agent
        self._poked = asyncio.Event()
        self._reported = row.task.state
        self._container: Container | None = None
        self.awaits = ""  # what stands between its start and `running`, in words

    def poke(self) -> None:
        """Something about it may have changed."""
        self._poked.set()

    @property
    def is_to_end(self) -> bool:
        return self.is_forgotten or self.row.task.desired > TaskState.COMPLETE

    async def run(self) -> None:
        """To the task's end. A failure of the engine is an end of the task; a bug too, with its name."""
        try:
            await self._live()
        except BennuError as error:
            self._refuse(str(error))
        except Exception as error:
            log.exception("task %s", self.row.id)
            self._refuse(f"internal error: {type(error).__name__}: {error}")

    def _refuse(self, err: str) -> None:
        state = TaskState.REJECTED if self._reported < TaskState.STARTING else TaskState.FAILED
        self._report(state, err=err)

    async def _live(self) -> None:
        containers = self._agent.containers_of(self.row.id)
        self._container = containers[0] if containers else None
        if self._container is None:
            if self._reported >= TaskState.READY:
                self._refuse(f"No such container: {self.row.name}")
                return
            if not await self._prepare():
                return
        container = self._container
        assert container is not None
        if container.record.state is State.CREATED and not container.record.started_before:
            self._report(TaskState.READY)
            if not await self._start(container):
                return
        await self._watch(container)

    # --- until it runs ------------------------------------------------------------------------------------------

    async def _prepare(self) -> bool:
        self._report(TaskState.ACCEPTED)
        if self.is_to_end:
            self._report(TaskState.SHUTDOWN)
            return False
        self._report(TaskState.PREPARING)
        agent, services = self._agent, self._agent.engine.services
        template = read_template(self.row.task.spec.container)
        image = template.container_spec.image if template.container_spec else ""
        image = await provide_image(services.images, image, self.row.task.spec.registry_auth)
        networks = [services.networks.find(item.target) for item in template.networks or ()]
        if needs_ingress(self.row.task.endpoint) and (ingress := services.networks.ingress) is not None:
            networks.insert(0, ingress)
        try:
            files = await agent.files.provide(self.row, agent.node)
        except BennuError as error:
            self._report(TaskState.FAILED, err=f"starting container failed: {error}")
            return False
        config, host, networking = container_request(self.row, agent.node, files, networks)
        config.image = image
        async with agent.places:
            container_id, _ = await agent.engine.create(self.row.name, config, host, networking)
        agent.note_container(container_id, self.row.id)
        self._container = agent.engine.find(container_id)
        return True

    async def _start(self, container: Container) -> bool:
        while not self.is_to_end and self.row.task.desired < TaskState.RUNNING:
            await self._wait(None)
        if self.is_to_end:
            self._report(TaskState.SHUTDOWN)
            return False
        self._report(TaskState.STARTING, self._facts())
        try:
            async with self._agent.places:
                # The files may have been lost with the host's memory, or the secret may be gone.
                await self._agent.files.provide(self.row, self._agent.node)
                await container.start(Asker.daemon(f"service {self.row.service_name}"))
        except NotModified:
            pass  # a person was faster
        except BennuError as error:
            code = container.record.exit_code
            self._report(TaskState.FAILED, self._facts(), err=f"starting container failed: {error}", exit_code=code)
            return False
        return True

    # --- while it runs ------------------------------------------------------------------------------------------

    async def _watch(self, container: Container) -> None:
        traffic = self._agent.traffic.backend_of(self, container)
        errand = container.record.errand
        if errand is not None and errand.unbegun and errand.by.kind == "client" and not self.is_to_end:
            # The former daemon died while a person's stop waited for connections. What a service asks is decided anew.
            self._agent.go_on_stopping(container)
        while True:
            if not container.record.running:
                await traffic.abandon()
                self._report_end(container)
                return
            if self.is_to_end:
                await self._stop(container, traffic, "update", self._why())
                self._report(TaskState.SHUTDOWN, self._ended_facts(), exit_code=container.record.exit_code)
                return
            health = container.record.health.status if container.record.health else "none"
            if health == "unhealthy":
                await self._stop(container, traffic, "health", "the task is unhealthy")
                self._report_unhealthy(container)
                return
            if self._reported >= TaskState.RUNNING or (health != "starting" and await traffic.is_up(health)):
                # Into the balancer first: who hears that it runs may stop another one.
                again_s = await traffic.follow(TaskState.RUNNING, health)
                self._report(TaskState.RUNNING, self._facts())
                self.awaits = ""
            else:
                again_s = await traffic.follow(self._reported, health)
                unready = "none of its published ports accepts a connection yet"
                self.awaits = "its health check has not succeeded yet" if health == "starting" else unready
            await self._wait(again_s)

    async def _stop(self, container: Container, traffic: Serving, kind: str, why: str) -> None:
        """Drained by `Traffic.parting`, as at every stop; then the stop signal, the grace period and the kill."""
        with contextlib.suppress(NotModified, NotFound):
            await container.stop(Asker(kind, command=why))
        await traffic.abandon()

    def _why(self) -> str:
        return f"service {self.row.service_name}: {self.row.why_desired or 'its task is gone'}"

    # --- telling ------------------------------------------------------------------------------------------------

    def _report_end(self, container: Container) -> None:
        code = container.record.exit_code
        if self.is_to_end:
            self._report(TaskState.SHUTDOWN, self._ended_facts(), exit_code=code)
        elif code == 0 and not container.record.error:
            self._report(TaskState.COMPLETE, self._ended_facts(), exit_code=0)
        else:
            shown = "unknown" if code is None else str(code)
            self._report(TaskState.FAILED, self._ended_facts(), err=f"task: non-zero exit ({shown})", exit_code=code)

    def _report_unhealthy(self, container: Container) -> None:
        """It failed, also when its process answered the stop signal with exit 0."""
        code = container.record.exit_code
        err = UNHEALTHY if code == 0 else f"task: non-zero exit ({'unknown' if code is None else code}): {UNHEALTHY}"
        self._report(TaskState.FAILED, self._ended_facts(), err=err, exit_code=code)

    def _report(
        self, state: TaskState, facts: Facts | None = None, *, err: str = "", exit_code: int | None = None
    ) -> None:
        if state <= self._reported:
            return
        self._reported = state
        report = Report(state, MESSAGES.get(state, ""), err, exit_code, time.time_ns())
        self._agent.manager.report(self.row.id, report, facts or self._facts())

    def _facts(self) -> Facts:
        """What can be seen of its container now."""
        if self._container is None:
            return Facts()
        record = self._container.record
        if record.sandbox is None:
            return Facts(container_id=record.id, pid=record.pid)
        bound = tuple(
            BoundPort(port.host_ip, port.host_port, port.container_port, port.proto) for port in record.sandbox.ports
        )
        attachments = tuple(
            Attachment(endpoint.network_id, f"{endpoint.ip_address}/{endpoint.ip_prefix_len}")
            for endpoint in record.sandbox.endpoints
        )
        return Facts(container_id=record.id, pid=record.pid, bound=bound, attachments=attachments)

    def _ended_facts(self) -> Facts:
        return Facts(container_id=self._container.id if self._container else "", pid=0)

    async def _wait(self, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._poked.wait()
        except TimeoutError:
            pass
        self._poked.clear()
