"""The agent of this node: makes the tasks it is given real through the engine, and tells the manager what it sees.

Law: it has no memory that counts. What a task should be is in the state, what it is can be seen in its container, and
the container is found by its label: an agent that comes back after any death goes on where things are.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from typing import Final

from bennu.cluster.controller import Controller
from bennu.cluster.manager import Manager
from bennu.cluster.records import NodeRow, TaskRow
from bennu.cluster.state import Changed, State
from bennu.cluster.task_container import TASK_ID_LABEL
from bennu.cluster.task_files import TaskFiles
from bennu.cluster.traffic import Traffic
from bennu.engine.background import Background
from bennu.engine.container import Container
from bennu.engine.engine import Engine
from bennu.errors import BennuError, NotFound
from bennu.lifecycle.death import Asker
from bennu.orchestration.states import TaskState

STARTS_AT_ONCE: Final = 8
log = logging.getLogger(__name__)


class Agent:
    """`run` it beside the manager."""

    def __init__(
        self, engine: Engine, state: State, manager: Manager, traffic: Traffic, files: TaskFiles, node_id: str
    ) -> None:
        self.engine = engine
        self.state = state
        self.manager = manager
        self.traffic = traffic
        self.files = files
        self.node_id = node_id
        self.places = asyncio.Semaphore(STARTS_AT_ONCE)
        self._controllers: dict[str, Controller] = {}
        self._of_container: dict[str, str] = {}  # container id → task id
        self._containers: dict[str, list[str]] = {}  # and back
        self._work = Background()
        self._removing: set[str] = set()

    @property
    def node(self) -> NodeRow:
        return self.state.nodes.rows[self.node_id]

    async def run(self) -> None:
        """Until cancelled; containers live on."""
        self.state.watchers.append(self._on_change)
        try:
            async with self._work:
                self._take_up()
                await self._follow_containers()
        finally:
            self.state.watchers.remove(self._on_change)

    def _take_up(self) -> None:
        for container in self.engine.list():
            task_id = task_of(container)
            if task_id:
                self.note_container(container.id, task_id)
                if task_id not in self.state.tasks.rows and not self.state.why_aside(self.state.tasks, task_id):
                    self._remove_later(task_id)
        for row in self.state.tasks:
            self._consider(row)
        self._work.create_task(self.traffic.take_up(), name="take up services")

    async def _follow_containers(self) -> None:
        """Wake the task whose container something happened to."""
        async for item in self.engine.services.journal.follow(None, None):
            if item.type == "container":
                task_id = self._of_container.get(item.actor.id)
                if task_id in self._controllers:
                    self._controllers[task_id].poke()

    # --- being told ---------------------------------------------------------------------------------------------

    def _on_change(self, told: list[Changed]) -> None:
        services: set[str] = set()
        over: set[str] = set()
        for item in told:
            if item.table == "tasks" and isinstance(item.after, TaskRow):
                self._consider(item.after)
            elif item.table == "tasks" and isinstance(item.before, TaskRow):
                over.add(item.before.task.service_id)
                if item.before.task.node_id == self.node_id:
                    self._forget(item.row_id)
            elif item.table == "services":
                services.add(item.row_id)
        shown = [key for key in services | (over - self.state.services.rows.keys()) if self.traffic.present(key)]
        if shown:
            self._work.create_task(self.traffic.write(*shown), name="show services")
        if services:  # blue and green change places
            for row in (row for service_id in services for row in self.state.tasks_of(service_id)):
                if row.id in self._controllers:
                    self._controllers[row.id].poke()

    def _consider(self, row: TaskRow) -> None:
        """Never raises: one task's trouble is not the others'."""
        try:
            self._drive_as_said(row)
        except Exception:
            log.exception("task %s cannot be taken up", row.id)

    def _drive_as_said(self, row: TaskRow) -> None:
        if row.task.node_id != self.node_id:
            return
        controller = self._controllers.get(row.id)
        if controller is not None:
            controller.row = row
            controller.poke()
        elif TaskState.ASSIGNED <= row.task.state <= TaskState.RUNNING:
            controller = self._controllers[row.id] = Controller(self, row)
            self._work.create_task(self._drive(controller), name=f"task {row.id}")

    async def _drive(self, controller: Controller) -> None:
        try:
            await controller.run()
        finally:
            self._controllers.pop(controller.row.id, None)
        if controller.is_forgotten:
            self._remove_later(controller.row.id)

    def _forget(self, task_id: str) -> None:
        """The manager no longer knows it: end it, then take away what is left."""
        controller = self._controllers.get(task_id)
        if controller is not None:
            controller.is_forgotten = True
            controller.poke()
        else:
            self._remove_later(task_id)

    def _remove_later(self, task_id: str) -> None:
        if task_id not in self._removing:
            self._removing.add(task_id)
            self._work.create_task(self._remove(task_id), name=f"remove containers of task {task_id}")

    async def _remove(self, task_id: str) -> None:
        by = Asker.daemon(f"task {task_id} is over")
        try:
            await self.traffic.leave(task_id)
            for container in self.containers_of(task_id):
                with contextlib.suppress(NotFound):
                    await remove_container(self.engine, container, by)
                self._of_container.pop(container.id, None)
            self._containers.pop(task_id, None)
            await self.files.remove(task_id)
        finally:
            self._removing.discard(task_id)

    def go_on_stopping(self, container: Container) -> None:
        """As a person asked a former daemon, which had not sent the stop signal yet."""
        self._work.create_task(container.finish_errand(is_held=True), name=f"go on stopping {container.id[:12]}")

    def awaits(self, task_id: str) -> str:
        """What a started task of this node waits for before it is called running; "": nothing."""
        controller = self._controllers.get(task_id)
        return controller.awaits if controller is not None else ""

    # --- containers ---------------------------------------------------------------------------------------------

    def note_container(self, container_id: str, task_id: str) -> None:
        self._of_container[container_id] = task_id
        self._containers.setdefault(task_id, []).append(container_id)

    def containers_of(self, task_id: str) -> list[Container]:
        return list(_alive(self.engine, self._containers.get(task_id, ())))


async def remove_container(engine: Engine, container: Container, by: Asker) -> None:
    """Of a task that is over: stopped with its grace, then taken away. Raises: NotFound when somebody was faster."""
    try:
        if container.record.running:
            with contextlib.suppress(BennuError):
                await container.stop(by)
        await engine.remove(container.id, by, force=True, volumes=True)
    except NotFound:
        raise
    except BennuError as error:
        log.warning("container %s of a task that is over could not be removed: %s", container.id[:12], error)


async def remove_all_tasks(engine: Engine, files: TaskFiles) -> None:
    """The swarm is left, no agent runs any more: every task's container goes, with what it was given."""
    by = Asker.daemon("the node left the swarm")

    async def sweep(container: Container) -> None:
        with contextlib.suppress(NotFound):
            await remove_container(engine, container, by)
        await files.remove(task_of(container))

    await asyncio.gather(*(sweep(container) for container in engine.list() if task_of(container)))


def task_of(container: Container) -> str:
    """The id of the task the container was made for; "" for others."""
    return (container.record.config.labels or {}).get(TASK_ID_LABEL, "")


def _alive(engine: Engine, ids: Iterable[str]) -> Iterable[Container]:
    for container_id in list(ids):
        try:
            yield engine.find(container_id)
        except BennuError:
            continue
