"""One task on this node, from its acceptance to its end, by the steps that `orchestration/tasks/task_step.py` decides.

        accepted → preparing → ready ─(desired: running)→ starting ─(healthy)→ running → complete | failed
                                                                             └(ordered)→ drained → shutdown

Each look compares what the task should be with what its container is. A look follows each step, and each change of
either, so a runner that begins in the middle of a task's life takes the same steps.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from bennu.cluster.convert import read_template
from bennu.cluster.images import provide_image
from bennu.cluster.load_balancer import LoadBalancer
from bennu.cluster.ports import needs_ingress
from bennu.cluster.round_rows import Facts
from bennu.cluster.state import ClusterState
from bennu.cluster.tables import BoundPort, NetworkAttachment, NodeRow, TaskRow
from bennu.cluster.task_backend import TaskBackend
from bennu.cluster.task_container import container_request
from bennu.cluster.task_containers import TaskContainers
from bennu.cluster.task_files import TaskFiles
from bennu.engine.background import Background
from bennu.engine.container import Container
from bennu.engine.engine import Engine
from bennu.errors import BennuError, NotFound, NotModified
from bennu.lifecycle.death import Requester
from bennu.lifecycle.status import State as ContainerState
from bennu.orchestration.model.states import TaskState
from bennu.orchestration.tasks.observe import Report, classify_end
from bennu.orchestration.tasks.task_step import (
    End,
    Hold,
    Prepare,
    Serve,
    StartTask,
    Stop,
    TaskProcess,
    TaskSeen,
    next_task_step,
    progress,
    refusal,
)

STARTS_AT_ONCE: Final = 8
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunnerContext:
    """The context that the runners of one node share.

    `report` tells the manager; `work` owns what goes on beside a runner.
    """

    engine: Engine
    state: ClusterState
    balancer: LoadBalancer
    files: TaskFiles
    containers: TaskContainers
    report: Callable[[str, Report, Facts], None]
    work: Background
    node_id: str
    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(STARTS_AT_ONCE))

    @property
    def node(self) -> NodeRow:
        return self.state.nodes.rows[self.node_id]


class TaskRunner:
    """The runner of one task.

    Its owner sets `row` and `is_forgotten` (the manager no longer knows it) and then pokes.
    """

    def __init__(self, context: RunnerContext, row: TaskRow) -> None:
        self.row = row
        self.is_forgotten = False
        self.awaits = ""  # what stands between its start and `running`, in words
        self._context = context
        self._poked = asyncio.Event()
        self._reported = row.task.state
        self._container: Container | None = None
        self._backend: TaskBackend | None = None  # of its container, once that was started

    def poke(self) -> None:
        """Wake the runner, because something about its task may have changed."""
        self._poked.set()

    @property
    def _desired(self) -> TaskState:
        return TaskState.REMOVE if self.is_forgotten else self.row.task.desired

    @property
    def _is_to_end(self) -> bool:
        return self._desired > TaskState.COMPLETE

    async def run(self) -> None:
        """Run the task to its end. A failure of the engine is an end of the task; a bug too, with its name."""
        self._container = next(iter(self._context.containers.of_task(self.row.id)), None)
        try:
            while await self._take_step():
                pass
        except BennuError as error:
            self._tell(refusal(self._reported, str(error)))
        except Exception as error:
            log.exception("task %s", self.row.id)
            self._tell(refusal(self._reported, f"internal error: {type(error).__name__}: {error}"))

    async def _take_step(self) -> bool:
        """Take the task's next step; False when the task has ended."""
        seen = await self._look()
        match next_task_step(self._desired, self._reported, seen, name=self.row.name):
            case Prepare():
                return await self._prepare()
            case Hold():
                self._tell(progress(TaskState.READY))
                await self._wait(None)
            case StartTask():
                self._tell(progress(TaskState.READY))
                return await self._start()
            case Serve(state, awaits):
                await self._serve(state, awaits, seen.health)
            case Stop(for_health):
                await self._stop(for_health)
                return False
            case End(report):
                await self._leave()
                self._tell(report)
                return False
        return True

    async def _look(self) -> TaskSeen:
        if self._container is None:
            return TaskSeen(TaskProcess.ABSENT)
        record = self._container.record
        if record.state is ContainerState.CREATED and not record.life.ordinal:
            return TaskSeen(TaskProcess.MADE)
        if self._backend is None:
            self._backend = self._context.balancer.add(self.row, self._container, self.poke)
            self._go_on_stopping(self._container)
        if not record.running:
            return TaskSeen(TaskProcess.ENDED, exit_code=record.exit_code, error=record.error)
        health = record.health.status if record.health else "none"
        is_asked = (
            self._reported < TaskState.RUNNING and not self._is_to_end and health not in ("starting", "unhealthy")
        )
        return TaskSeen(TaskProcess.RUNS, health, is_up=is_asked and await self._backend.is_up(health))

    # --- until it runs ------------------------------------------------------------------------------------------

    async def _prepare(self) -> bool:
        self._tell(progress(TaskState.ACCEPTED))
        self._tell(progress(TaskState.PREPARING))
        context, services = self._context, self._context.engine.services
        template = read_template(self.row.task.spec.container)
        image = template.container_spec.image if template.container_spec else ""
        image = await provide_image(services.images, image, self.row.task.spec.registry_auth)
        networks = [services.networks.find(item.target) for item in template.networks or ()]
        if needs_ingress(self.row.task.endpoint) and (ingress := services.networks.ingress) is not None:
            networks.insert(0, ingress)
        try:
            files = await context.files.provide(self.row, context.node)
        except BennuError as error:
            self._tell(Report(TaskState.FAILED, err=f"starting container failed: {error}"))
            return False
        config, host, networking = container_request(self.row, context.node, files, networks)
        config.image = image
        async with context.places:
            container_id, _ = await context.engine.create(self.row.name, config, host, networking)
        context.containers.note(container_id, self.row.id)
        self._container = context.engine.find(container_id)
        return True

    async def _start(self) -> bool:
        container = self._container
        assert container is not None
        self._tell(progress(TaskState.STARTING))
        try:
            async with self._context.places:
                # The files may have been lost with the host's memory, or the secret may be gone.
                await self._context.files.provide(self.row, self._context.node)
                await container.start(Requester.daemon(f"service {self.row.service_name}"))
        except NotModified:
            pass  # a person was faster
        except BennuError as error:
            code = container.record.exit_code
            self._tell(Report(TaskState.FAILED, err=f"starting container failed: {error}", exit_code=code))
            return False
        return True

    # --- while it runs ------------------------------------------------------------------------------------------

    async def _serve(self, state: TaskState, awaits: str, health: str) -> None:
        assert self._backend is not None
        # Into the balancer first: who hears that it runs may stop another one.
        again_s = await self._context.balancer.follow(self._backend, state, health)
        if state is TaskState.RUNNING:
            self._tell(progress(state))
        self.awaits = awaits
        await self._wait(again_s)

    async def _stop(self, for_health: bool) -> None:
        """Stop the task: drain by the load balancer, as at every stop, then stop signal, grace period and kill."""
        container = self._container
        assert container is not None
        kind, why = ("health", "the task is unhealthy") if for_health else ("update", self._why())
        with contextlib.suppress(NotModified, NotFound):
            await container.stop(Requester(kind, command=why))
        await self._leave()
        code = container.record.exit_code
        self._tell(classify_end(exit_code=code, was_ordered=not for_health, was_unhealthy=for_health))

    def _why(self) -> str:
        return f"service {self.row.service_name}: {self.row.why_desired or 'its task is gone'}"

    async def _leave(self) -> None:
        if self._backend is not None:
            await self._context.balancer.drop(self._backend)

    def _go_on_stopping(self, container: Container) -> None:
        """Go on with a person's stop that waited for connections when the former daemon died.

        A stop that a service asks for is decided anew.
        """
        pending = container.record.life.pending
        if pending is not None and pending.unbegun and pending.by.kind == "client" and not self._is_to_end:
            name = f"go on stopping {container.id[:12]}"
            self._context.work.create_task(container.finish_pending(is_held=True), name=name)

    # --- reports ------------------------------------------------------------------------------------------------

    def _tell(self, report: Report) -> None:
        if report.state <= self._reported:
            return
        self._reported = report.state
        self._context.report(self.row.id, replace(report, timestamp_ns=time.time_ns()), self._facts())

    def _facts(self) -> Facts:
        """Read the facts about the task's container that are visible now."""
        if self._container is None:
            return Facts()
        record = self._container.record
        if not record.running or record.sandbox is None:
            return Facts(container_id=record.id, pid=record.pid)
        bound = tuple(
            BoundPort(port.host_ip, port.host_port, port.container_port, port.proto) for port in record.sandbox.ports
        )
        attachments = tuple(
            NetworkAttachment(endpoint.network_id, f"{endpoint.ip_address}/{endpoint.ip_prefix_len}")
            for endpoint in record.sandbox.endpoints
            if endpoint.ip_address
        )
        return Facts(container_id=record.id, pid=record.pid, bound=bound, attachments=attachments)

    async def _wait(self, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._poked.wait()
        except TimeoutError:
            pass
        self._poked.clear()
