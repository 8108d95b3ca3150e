"""The agent of this node: makes the tasks it is given real through the engine, and tells the manager what it sees.

    Agent ──► TaskRunner ──► LoadBalancer ──► TaskBackend        one runner and one backend a task; no arrow back

Law: it has no memory that counts. What a task should be is in the state, what it is can be seen in its container, and
the container is found by its label: an agent that comes back after any death goes on where things are.
"""

import logging
from collections.abc import Callable

from bennu.cluster.load_balancer import LoadBalancer
from bennu.cluster.round_rows import Facts
from bennu.cluster.state import Changed, ClusterState
from bennu.cluster.tables import TaskRow
from bennu.cluster.task_containers import TaskContainers, task_of
from bennu.cluster.task_files import TaskFiles
from bennu.cluster.task_runner import RunnerContext, TaskRunner
from bennu.engine.background import Background
from bennu.engine.engine import Engine
from bennu.orchestration.model.states import TaskState
from bennu.orchestration.tasks.observe import Report

log = logging.getLogger(__name__)


class Agent:
    """The agent of this node; `run` it beside the manager. It calls `report` with what it sees."""

    def __init__(
        self,
        engine: Engine,
        state: ClusterState,
        report: Callable[[str, Report, Facts], None],
        balancer: LoadBalancer,
        files: TaskFiles,
        node_id: str,
    ) -> None:
        self._engine = engine
        self._state = state
        self._balancer = balancer
        self._files = files
        self._node_id = node_id
        self._containers = TaskContainers(engine)
        self._runners: dict[str, TaskRunner] = {}
        self._removing: set[str] = set()
        self._work = Background()
        self._context = RunnerContext(engine, state, balancer, files, self._containers, report, self._work, node_id)

    async def run(self) -> None:
        """Run tasks until cancelled; containers live on."""
        self._state.watchers.append(self._on_change)
        try:
            async with self._work:
                self._take_up()
                await self._follow_containers()
        finally:
            self._state.watchers.remove(self._on_change)

    def _take_up(self) -> None:
        for container in self._engine.list():
            task_id = task_of(container)
            if task_id:
                self._containers.note(container.id, task_id)
                if task_id not in self._state.tasks.rows and not self._state.why_aside(self._state.tasks, task_id):
                    self._remove_later(task_id)
        for row in self._state.tasks:
            self._consider(row)
        self._work.create_task(self._balancer.take_up(), name="take up services")

    async def _follow_containers(self) -> None:
        """Wake the runner of a task when something happens to the task's container."""
        async for item in self._engine.services.journal.follow(None, None):
            if item.type == "container":
                self._poke(self._containers.task_of(item.actor.id))

    def _poke(self, task_id: str | None) -> None:
        if task_id is not None and (runner := self._runners.get(task_id)) is not None:
            runner.poke()

    def awaits(self, task_id: str) -> str:
        """Say what a started task of this node waits for before it counts as running; "" means nothing."""
        runner = self._runners.get(task_id)
        return runner.awaits if runner is not None else ""

    # --- being told ---------------------------------------------------------------------------------------------

    def _on_change(self, told: list[Changed]) -> None:
        services: set[str] = set()
        over: set[str] = set()
        for item in told:
            if item.table == "tasks" and isinstance(item.after, TaskRow):
                self._consider(item.after)
            elif item.table == "tasks" and isinstance(item.before, TaskRow):
                over.add(item.before.task.service_id)
                if item.before.task.node_id == self._node_id:
                    self._forget(item.row_id)
            elif item.table == "services":
                services.add(item.row_id)
        shown = [key for key in services | (over - self._state.services.rows.keys()) if self._balancer.present(key)]
        if shown:
            self._work.create_task(self._balancer.write(*shown), name="show services")
        for service_id in services:  # blue and green change places
            for row in self._state.tasks_of(service_id):
                self._poke(row.id)

    def _consider(self, row: TaskRow) -> None:
        """Compare a task with its row and drive its runner.

        Never raises: trouble with one task must not stop the others.
        """
        try:
            self._run_as_said(row)
        except Exception:
            log.exception("task %s cannot be taken up", row.id)

    def _run_as_said(self, row: TaskRow) -> None:
        if row.task.node_id != self._node_id:
            return
        runner = self._runners.get(row.id)
        if runner is not None:
            runner.row = row
            runner.poke()
        elif TaskState.ASSIGNED <= row.task.state <= TaskState.RUNNING:
            runner = self._runners[row.id] = TaskRunner(self._context, row)
            self._work.create_task(self._run(runner), name=f"task {row.id}")

    async def _run(self, runner: TaskRunner) -> None:
        try:
            await runner.run()
        finally:
            self._runners.pop(runner.row.id, None)
        if runner.is_forgotten:
            self._remove_later(runner.row.id)

    def _forget(self, task_id: str) -> None:
        """End a task that the manager no longer knows, then remove what is left of it."""
        runner = self._runners.get(task_id)
        if runner is not None:
            runner.is_forgotten = True
            runner.poke()
        else:
            self._remove_later(task_id)

    def _remove_later(self, task_id: str) -> None:
        if task_id not in self._removing:
            self._removing.add(task_id)
            self._work.create_task(self._remove(task_id), name=f"remove containers of task {task_id}")

    async def _remove(self, task_id: str) -> None:
        try:
            await self._balancer.leave(task_id)
            await self._containers.remove(task_id)
            await self._files.remove(task_id)
        finally:
            self._removing.discard(task_id)
